"""A transaction that blocks pass over is sent again for more, until one of its variants is in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pouw.chain.accounts import dev_account
from pouw.chain.carrier import Receipt
from pouw.chain.fees import GWEI, Fees
from pouw.chain.outgoing import Outgoing, Policy, Signed
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Call, Sender
from pouw.errors import ChainError, TransactionLost
from pouw.journal import Journal
from pouw.roles.outbox import JournalOutbox
from pouw.types import Address

NOBODY = Address("0x" + "11" * 20)
TRANSFER = Call("transfer", NOBODY, b"", 1)
OTHER = Call("another transfer", NOBODY, b"", 2)
LIMIT_WEI = 500 * GWEI
EAGER = Policy(timeout_seconds=20.0, patience_seconds=0.2)


@pytest.fixture
def busy(anvil_url: str) -> Iterator[Endpoint]:
    """A chain that mines when it is told to, at the base fee it is told."""
    endpoint = Endpoint.connect(anvil_url)
    endpoint.request("evm_setAutomine", False)
    yield endpoint
    endpoint.close()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[JournalOutbox]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield JournalOutbox(journal)


def mine(endpoint: Endpoint, base_fee_wei: int) -> None:
    endpoint.request("anvil_setNextBlockBaseFeePerGas", hex(base_fee_wei))
    endpoint.request("evm_mine")


def balance(endpoint: Endpoint) -> int:
    return endpoint.quantity("eth_getBalance", NOBODY, "latest")


class Waiting:
    """A thread that waits for a transaction; the chain goes on meanwhile."""

    def __init__(self, sender: Sender, sent: Outgoing) -> None:
        self._outcome: Receipt | ChainError | None = None
        self._thread = threading.Thread(target=self._wait, args=(sender, sent))
        self._thread.start()

    def _wait(self, sender: Sender, sent: Outgoing) -> None:
        try:
            self._outcome = sender.wait(sent)
        except ChainError as error:
            self._outcome = error

    def mining(self, endpoint: Endpoint, base_fee_wei: int) -> Receipt:
        """Mine until it is included; ChainError where it is given up."""
        while self._thread.is_alive():
            mine(endpoint, base_fee_wei)
            self._thread.join(0.3)
        if isinstance(self._outcome, ChainError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome


@pytest.mark.parametrize(
    ("before", "offer", "expected"),
    [
        (Fees(80, 8), Fees(0, 0), Fees(90, 9)),
        (Fees(81, 1), Fees(0, 0), Fees(92, 2)),
        (Fees(0, 0), Fees(0, 0), Fees(1, 1)),
        (Fees(80, 8), Fees(1_000, 100), Fees(1_000, 100)),
        (Fees(80, 8), Fees(5_000, 3_000), Fees(2_000, 2_000)),
        (Fees(1_800, 8), Fees(0, 0), None),
    ],
)
def test_raised__by_an_eighth_or_to_the_offer__within_the_limit(
    before: Fees, offer: Fees, expected: Fees | None
) -> None:
    assert before.raised(offer, limit_wei=2_000) == expected


def test_raised__again_and_again__every_step_is_one_that_nodes_take() -> None:
    fees, steps = Fees(2 * GWEI, 1), 0
    while (more := fees.raised(Fees(0, 0), LIMIT_WEI)) is not None:
        assert more.most_wei * 10 >= fees.most_wei * 11
        assert more.tip_wei * 10 >= fees.tip_wei * 11
        assert more.tip_wei <= more.most_wei <= LIMIT_WEI
        fees, steps = more, steps + 1
    assert steps == 46


def test_offer__at_most_the_limit() -> None:
    assert Fees.offer(100, 7, 1_000) == Fees(207, 7)
    assert Fees.offer(100, 7, 150) == Fees(150, 7)
    assert Fees.offer(100, 7, 5) == Fees(5, 5)


def test_wait__base_fee_rises_above_the_offer__replaced_and_included(
    busy: Endpoint, outbox: JournalOutbox
) -> None:
    sender = Sender(busy, dev_account(1), outbox, EAGER)
    sent = sender.send(TRANSFER)
    base_fee_wei = 10 * sent.last.fees.most_wei
    mine(busy, base_fee_wei)
    assert sender.receipt(sent.last.digest) is None
    receipt = Waiting(sender, sent).mining(busy, base_fee_wei)
    assert receipt.succeeded
    assert receipt.transaction_hash == sent.last.digest != sent.variants[0].digest
    assert {variant.count for variant in sent.variants} == {0}
    assert balance(busy) == 1
    assert outbox.kept() == []


def test_wait__no_block_came__the_same_bytes_are_sent_again(busy: Endpoint) -> None:
    sender = Sender(busy, dev_account(1), policy=EAGER)
    sent = sender.send(TRANSFER)
    busy.request("anvil_dropTransaction", "0x" + sent.last.digest.hex())
    waiting = Waiting(sender, sent)
    deadline = time.monotonic() + 20
    while busy.request("eth_getTransactionByHash", "0x" + sent.last.digest.hex()) is None:
        assert time.monotonic() < deadline
    assert waiting.mining(busy, GWEI).transaction_hash == sent.last.digest
    assert len(sent.variants) == 1


def test_wait__an_earlier_variant_is_included__counts_as_well(busy: Endpoint) -> None:
    sender = Sender(busy, dev_account(1), policy=Policy(patience_seconds=3600))
    sent = sender.send(TRANSFER)
    sent.variants.append(sent.last.again(dev_account(1), Fees(100 * GWEI, 2 * GWEI)))
    receipt = Waiting(sender, sent).mining(busy, GWEI)
    assert receipt.transaction_hash == sent.variants[0].digest


def test_wait__what_came_before_is_stuck__that_is_raised_first(busy: Endpoint) -> None:
    sender = Sender(busy, dev_account(1), policy=EAGER)
    stuck = sender.send(TRANSFER)
    behind = sender.send(OTHER)
    Waiting(sender, behind).mining(busy, 10 * stuck.last.fees.most_wei)
    assert len(stuck.variants) > 1
    assert balance(busy) == 3


def test_wait__limit_reached__nothing_above_it_is_signed(
    busy: Endpoint, outbox: JournalOutbox
) -> None:
    policy = Policy(timeout_seconds=2.0, patience_seconds=0.2, max_fee_wei=4 * GWEI)
    sender = Sender(busy, dev_account(1), outbox, policy)
    sent = sender.send(TRANSFER)
    assert sent.last.fees.most_wei == 3 * GWEI
    mine(busy, 50 * GWEI)
    with pytest.raises(ChainError) as caught:
        Waiting(sender, sent).mining(busy, 50 * GWEI)
    assert "max_fee_gwei" in str(caught.value.hint)
    assert [variant.fees.most_wei for variant in sent.variants] == [3 * GWEI, 4 * GWEI]
    assert outbox.kept() == [], "anvil drops what cannot pay, and takes it no more"


def test_send__given_up_and_asked_for_again__is_not_sent_twice(busy: Endpoint) -> None:
    policy = Policy(timeout_seconds=0.3, patience_seconds=3600)
    sender = Sender(busy, dev_account(1), policy=policy)
    first = sender.send(TRANSFER)
    with pytest.raises(TransactionLost):
        sender.wait(first)
    again = sender.send(TRANSFER)
    assert again is first
    assert sender.send(OTHER).last.count == first.last.count + 1


def test_settle__left_by_a_process_that_was_killed__is_raised_and_included(
    busy: Endpoint, outbox: JournalOutbox
) -> None:
    killed = Sender(busy, dev_account(1), outbox, EAGER)
    stuck = killed.send(TRANSFER)
    restarted = Sender(busy, dev_account(1), outbox, EAGER)
    behind = restarted.send(OTHER)
    base_fee_wei = 10 * stuck.last.fees.most_wei
    mine(busy, base_fee_wei)
    assert restarted.receipt(stuck.last.digest) is None
    Waiting(restarted, behind).mining(busy, base_fee_wei)
    restarted.settle()
    assert balance(busy) == 3
    assert outbox.kept() == []
    assert stuck.variants == [stuck.last], "the killed process signed one"


def test_send__left_between_journal_and_chain__goes_out_first(
    busy: Endpoint, outbox: JournalOutbox
) -> None:
    class Killed(JournalOutbox):
        def keep(self, signed: Signed) -> None:
            outbox.keep(signed)
            raise SystemExit

    killed = Sender(busy, dev_account(1), Killed(outbox._journal), EAGER)
    with pytest.raises(SystemExit):
        killed.send(TRANSFER)
    (kept,) = outbox.kept()
    sent = Sender(busy, dev_account(1), outbox, EAGER).send(OTHER)
    mine(busy, GWEI)
    assert (kept.count, sent.last.count) == (0, 1)
    assert balance(busy) == 3


def test_taken_up__nobody_would_take_it_now__leaves_no_gap(
    busy: Endpoint, outbox: JournalOutbox
) -> None:
    poor = Call("more than there is", NOBODY, b"", 10**30)
    form = {"type": 2, "chainId": 31337, "nonce": 0, "gas": 21_000, "to": NOBODY}
    outbox.keep(Signed.sign(dev_account(1), form | {"value": poor.value_wei}, Fees(GWEI, 1)))
    outbox.keep(Signed.sign(dev_account(2), form | {"nonce": 5}, Fees(GWEI, 1)))
    sent = Sender(busy, dev_account(1), outbox, EAGER).send(TRANSFER)
    assert sent.last.count == 0
    assert {variant.sender for variant in outbox.kept()} == {
        dev_account(1).address,
        dev_account(2).address,
    }


def test_wait__another_transaction_takes_the_count__is_lost_soon(
    busy: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.chain.tx._LAG_SECONDS", 0.5)
    sender = Sender(busy, dev_account(1), policy=EAGER)
    sent = sender.send(TRANSFER)
    other = sent.last.again(dev_account(1), Fees(100 * GWEI, 50 * GWEI))
    sender.resend(other)
    mine(busy, GWEI)
    with pytest.raises(TransactionLost, match="in place of"):
        sender.wait(sent)


def test_wait__raised_by_another_process_of_the_home__is_found(
    busy: Endpoint, outbox: JournalOutbox
) -> None:
    sender = Sender(busy, dev_account(1), outbox, EAGER)
    sent = sender.send(TRANSFER)
    dearer = sent.last.again(dev_account(1), Fees(100 * GWEI, 50 * GWEI))
    outbox.keep(dearer)
    sender.resend(dearer)
    mine(busy, GWEI)
    assert sender.wait(sent).transaction_hash == dearer.digest


def test_send__gas_costs_more_than_is_allowed__says_so(busy: Endpoint) -> None:
    mine(busy, 50 * GWEI)
    sender = Sender(busy, dev_account(1), policy=Policy(max_fee_wei=10 * GWEI, timeout_seconds=0.3))
    with pytest.raises(ChainError) as caught:
        sender.transact(TRANSFER)
    assert "max_fee_gwei" in str(caught.value.hint)


def test_signed__decoded__is_what_was_signed() -> None:
    form = {"type": 2, "chainId": 1, "nonce": 3, "gas": 21_000, "to": NOBODY, "value": 7}
    signed = Signed.sign(dev_account(1), form | {"data": b"\x05"}, Fees(9, 2))
    assert (signed.chain_id, signed.count, signed.fees) == (1, 3, Fees(9, 2))
    assert signed.purpose == (b"\x11" * 20, 7, b"\x05")
    assert signed.sender == dev_account(1).address
    more = signed.again(dev_account(1), Fees(18, 4))
    assert more.purpose == signed.purpose
    assert (more.count, more.fees) == (3, Fees(18, 4))
    assert Outgoing([signed, more]).last is more
