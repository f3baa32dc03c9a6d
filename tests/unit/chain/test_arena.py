from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from eth_account import Account

from pouw import events, hashing
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.reading import ArenaReader, snapshot
from pouw.chain.rpc import Endpoint, EndpointRefused
from pouw.chain.tx import Sender
from pouw.errors import ChainError, ChainUnavailable, ConfigError, Reverted
from pouw.types import (
    ZERO_ADDRESS,
    ZERO_WORD,
    Deadlines,
    EntryState,
    Header,
    Parameters,
    RoundNumber,
    TaskId,
    Verdict,
)

TEST_KEY = b"\x07" * 32
SPEC = b"\x01" * 32
MANIFEST = b"\x03" * 32
SALT = b"\x04" * 32
EVIDENCE = b"\x05" * 32
REWARD = 10**18
FIRST = RoundNumber(1)
Advance = Callable[[int], None]


def _publish(publisher: ArenaClient) -> TaskId:
    return publisher.publish(SPEC, hashing.key_hash_of(TEST_KEY), 500_000, REWARD)


def _commit(miner: ArenaClient) -> None:
    who = miner.sender.address
    commitment = hashing.commitment(31337, miner.address, FIRST, who, MANIFEST, SALT)
    assert commitment == miner.commitment_of(FIRST, who, MANIFEST, SALT)
    miner.commit(FIRST, commitment)


def _begin_round(clients: list[ArenaClient], advance: Advance) -> None:
    _publish(clients[1])
    advance(clients[0].parameters().phase2)
    clients[1].release_data_key(hashing.data_key_of(TEST_KEY))


def test_deploy__any_parameters__reads_them_back(
    clients: list[ArenaClient], parameters: Parameters
) -> None:
    assert clients[3].parameters() == parameters
    assert clients[3].last_header() == hashing.domain_separator(31337, clients[3].address)


def test_deploy__wrong_parameter__reverts_with_its_name(clients: list[ArenaClient]) -> None:
    wrong = dataclasses.replace(clients[0].parameters(), threshold=1)
    with pytest.raises(Reverted) as caught:
        deploy(clients[0].sender, wrong)
    assert caught.value.name == "InvalidParameter"
    assert caught.value.hint


def test_whole_round__winner_is_paid__events_and_records_tell_it(
    clients: list[ArenaClient], advance: Advance
) -> None:
    publisher, miner, anybody = clients[1], clients[2], clients[4]
    winner = miner.sender.address
    _begin_round(clients, advance)
    _commit(miner)
    advance(clients[0].parameters().phase1)
    publisher.open_test(TEST_KEY)
    miner.reveal(FIRST, MANIFEST, 700_000, SALT)
    advance(clients[0].parameters().key_window + clients[0].parameters().reveal_window)
    for oracle in clients[5:7]:
        oracle.report(FIRST, Verdict.WINNER, winner, EVIDENCE)
    assert anybody.votes(FIRST, Verdict.WINNER, winner) == 0b011
    live = snapshot(anybody)
    assert live.state.live
    assert live.round is not None
    assert (live.round.verdict, live.round.winner) == (Verdict.WINNER, winner)
    assert live.task is not None
    assert live.task.round == FIRST
    advance(clients[0].parameters().report_window + clients[0].parameters().challenge_window)
    closing = anybody.finalize()
    anybody.reclaim(FIRST, winner)
    fee = clients[0].parameters().fee_of(REWARD)
    assert miner.credit(winner) == REWARD - fee + clients[0].parameters().miner_bond
    miner.withdraw()
    assert miner.credit(winner) == 0
    found = anybody.events(0, anybody.endpoint.block_number())
    assert [type(event) for event in found] == [
        events.TaskPublished,
        events.TaskSelected,
        events.DataKeyReleased,
        events.Committed,
        events.TestOpened,
        events.Revealed,
        events.Reported,
        events.Reported,
        events.RoundClosed,
        *[events.Credited] * 4,
        events.Reclaimed,
        events.Credited,
        events.Withdrawn,
    ]
    closed = next(event for event in found if isinstance(event, events.RoundClosed))
    revealed = next(event for event in found if isinstance(event, events.Revealed))
    begun = next(event for event in found if isinstance(event, events.DataKeyReleased))
    assert (closed.block_number, closed.transaction_hash) == (
        closing.block_number,
        closing.transaction_hash,
    )
    domain = hashing.domain_separator(31337, anybody.address)
    signed = hashing.reveal_hash(domain, FIRST, winner, MANIFEST, 700_000)
    assert hashing.recover_signer(signed, revealed.signature) == winner
    assert closed.reveal_digest == hashing.reveal_digest(MANIFEST, revealed.signature)
    header = Header(
        FIRST,
        domain,
        TaskId(1),
        SPEC,
        begun.pool_history,
        Verdict.WINNER,
        winner,
        700_000,
        closed.reveal_digest,
        EVIDENCE,
        closed.closed_at,
    )
    assert hashing.header_hash(header) == closed.header == anybody.last_header()
    record = anybody.round(FIRST)
    assert record.closed
    assert record.t0 == begun.t0
    assert closed.closed_at >= Deadlines.of(record.t0, clients[0].parameters()).t5


def test_commit__after_phase_1__reverts_with_times_and_a_hint(
    clients: list[ArenaClient], advance: Advance
) -> None:
    _begin_round(clients, advance)
    end = Deadlines.of(clients[2].round(FIRST).t0, clients[0].parameters()).t1
    advance(clients[0].parameters().phase1)
    with pytest.raises(Reverted) as caught:
        _commit(clients[2])
    assert caught.value.name == "TooLate"
    assert caught.value.arguments["closed"] == end
    assert caught.value.hint is not None
    assert clients[2].entry(FIRST, clients[2].sender.address).state is EntryState.NONE


def test_reveal__another_manifest__reverts_with_the_computed_commitment(
    clients: list[ArenaClient], advance: Advance
) -> None:
    _begin_round(clients, advance)
    _commit(clients[2])
    advance(clients[0].parameters().phase1)
    clients[1].open_test(TEST_KEY)
    other = b"\x09" * 32
    with pytest.raises(Reverted) as caught:
        clients[2].reveal(FIRST, other, 700_000, SALT)
    who = clients[2].sender.address
    computed = hashing.commitment(31337, clients[2].address, FIRST, who, other, SALT)
    assert (caught.value.name, caught.value.arguments) == (
        "CommitmentMismatch",
        {"computed": "0x" + computed.hex()},
    )


def test_pool__top_up_and_cancel__reorder_and_return_the_money(
    clients: list[ArenaClient],
) -> None:
    publisher = clients[1]
    _publish(publisher)  # selected at once
    low = publisher.publish(SPEC, b"\x0a" * 32, 0, REWARD)
    high = publisher.publish(SPEC, b"\x0b" * 32, 0, 2 * REWARD)
    assert publisher.pool() == [high, low]
    assert publisher.pool(after=high) == [low]
    before = publisher.pool_history()
    publisher.top_up(low, 2 * REWARD)
    assert publisher.pool() == [low, high]
    assert publisher.pool_history() == hashing.pool_history(
        before, hashing.PoolChange.TOP_UP, low, publisher.sender.address, SPEC, 3 * REWARD
    )
    publisher.cancel(low)
    assert publisher.pool() == [high]
    money = 3 * REWARD + clients[0].parameters().bond_of(3 * REWARD)
    assert publisher.credit(publisher.sender.address) == money


def test_challenge__ruled__changes_the_outcome(
    clients: list[ArenaClient], advance: Advance
) -> None:
    _begin_round(clients, advance)
    _commit(clients[2])
    advance(clients[0].parameters().phase1)
    clients[1].open_test(TEST_KEY)
    clients[2].reveal(FIRST, MANIFEST, 700_000, SALT)
    advance(
        clients[0].parameters().key_window
        + clients[0].parameters().reveal_window
        + clients[0].parameters().report_window
    )
    clients[3].challenge(FIRST)
    clients[8].rule(FIRST, Verdict.WINNER, clients[2].sender.address, EVIDENCE)
    clients[4].finalize()
    record = clients[4].round(FIRST)
    assert (record.challenger, record.ruled, record.changed) == (
        clients[3].sender.address,
        True,
        True,
    )


def test_snapshot__at_an_earlier_block__shows_that_block(clients: list[ArenaClient]) -> None:
    before = clients[1].endpoint.block_number()
    _publish(clients[1])
    assert snapshot(clients[1], before).state.tasks == 0
    later = snapshot(clients[1])
    assert later.selected is not None
    assert later.selected.spec_digest == SPEC
    assert later.round is None


def test_deadline__passes_without_a_transaction__pending_calls_see_it(
    clients: list[ArenaClient], endpoint: Endpoint
) -> None:
    _publish(clients[1])
    released = clients[1].prepared("releaseDataKey", hashing.data_key_of(TEST_KEY))
    with pytest.raises(Reverted) as early:
        clients[1].sender.send(released)
    assert early.value.name == "TooEarly"
    # No block is closed here: time alone opens the window.
    endpoint.request("evm_increaseTime", clients[0].parameters().phase2 + 1)
    assert clients[1].sender.transact(released).succeeded


def test_deployment_block__any_start__is_where_the_code_appears(
    clients: list[ArenaClient], endpoint: Endpoint, advance: Advance
) -> None:
    advance(1)
    block = clients[0].deployment_block()
    code = [endpoint.data("eth_getCode", clients[0].address, hex(n)) for n in (block - 1, block)]
    assert [bool(one) for one in code] == [False, True]
    assert clients[0].deployment_block(block) == block
    assert clients[0].deployment_block(block - 1) == block


def test_deployment_block__state_is_not_kept__says_what_to_set(url: str) -> None:
    class Pruned(Endpoint):
        def data(self, method: str, *params: object) -> bytes:
            raise EndpointRefused(self.url, -32000, "missing trie node", None)

    endpoint = Pruned.connect(url)
    endpoint.request("evm_mine")
    with pytest.raises(ChainUnavailable) as caught:
        ArenaReader(endpoint, ZERO_ADDRESS).deployment_block()
    assert "--from-block" in str(caught.value.hint)
    endpoint.close()


def test_open__no_contract_there__says_so(url: str, clients: list[ArenaClient]) -> None:
    reader = ArenaReader.open(url, clients[0].address.lower())
    assert reader.address == clients[0].address
    reader.endpoint.close()
    with pytest.raises(ConfigError, match="there is no contract"):
        ArenaReader.open(url, "0x" + "11" * 20)
    with pytest.raises(ConfigError, match="not an address"):
        ArenaReader.open(url, "0x1234")


def test_confirmed_block__counts_the_block_itself(clients: list[ArenaClient]) -> None:
    head = clients[0].endpoint.block_number()
    assert clients[0].confirmed_block(1) == head
    assert clients[0].confirmed_block(2) == head - 1
    assert clients[0].confirmed_block(10**6) == 0


def test_events__of_an_empty_range__are_none(clients: list[ArenaClient]) -> None:
    assert clients[0].events(0, clients[0].endpoint.block_number()) == []
    assert clients[0].round(FIRST).header == ZERO_WORD


def test_sender__unknown_sender_without_money__says_what_to_do(
    clients: list[ArenaClient],
) -> None:
    poor = ArenaClient(
        Sender(clients[0].endpoint, Account.from_key(b"\x42" * 32)), clients[0].address
    )
    with pytest.raises(ChainError, match="cannot pay"):
        _publish(poor)
