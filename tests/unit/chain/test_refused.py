"""A transaction that nobody has any more and nobody takes: its count is free for the next one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from relay import Relay, relay_to

from pouw.chain.accounts import dev_account
from pouw.chain.outgoing import Outgoing, Policy, Signed
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Call, Sender
from pouw.errors import ChainError, ChainUnavailable, TransactionLost
from pouw.journal import Journal
from pouw.roles.outbox import JournalOutbox
from pouw.types import Address

ETHER = 10**18
ACCOUNT = dev_account(1)
NOBODY = Address("0x" + "11" * 20)
DEAR = Call("dear", NOBODY, b"", 5 * ETHER)
CHEAP = Call("cheap", NOBODY, b"", 1)
PATIENT = Policy(timeout_seconds=0.3, patience_seconds=3600)
EAGER = Policy(timeout_seconds=5.0, patience_seconds=0.2)
REFUSALS = [
    "tx fee (1.20 ether) exceeds the configured cap (1.00 ether)",
    "exceeds block gas limit",
    "transaction underpriced",
    "max fee per gas less than block base fee",
    "execution reverted",
    "internal error",
]


@pytest.fixture
def node(anvil_url: str) -> Iterator[Endpoint]:
    """A chain that mines when it is told to."""
    endpoint = Endpoint.connect(anvil_url)
    endpoint.request("evm_setAutomine", False)
    yield endpoint
    endpoint.close()


@pytest.fixture
def relay(anvil_url: str) -> Iterator[Relay]:
    with relay_to(anvil_url) as relay:
        yield relay


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[JournalOutbox]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield JournalOutbox(journal)


def lose(node: Endpoint, sent: Outgoing) -> None:
    """The node forgets what waits in its pool, as one that was started again."""
    node.request("anvil_dropTransaction", "0x" + sent.last.digest.hex())


def impoverish(node: Endpoint) -> None:
    """Leave the account an ether: the dear transfer would be refused from now on."""
    node.request("anvil_setBalance", ACCOUNT.address, hex(ETHER))


def mine_at_once(node: Endpoint) -> None:
    node.request("evm_setAutomine", True)
    node.request("evm_mine")


def received(node: Endpoint) -> int:
    return node.quantity("eth_getBalance", NOBODY, "latest")


def test_wait__lost_by_the_node_and_refused__says_why_at_once(
    node: Endpoint, outbox: JournalOutbox
) -> None:
    sender = Sender(node, ACCOUNT, outbox, EAGER)
    sent = sender.send(DEAR)
    lose(node, sent)
    impoverish(node)
    with pytest.raises(ChainError, match="cannot pay") as caught:
        sender.wait(sent)
    assert "send it some ether" in str(caught.value.hint)
    assert outbox.kept() == []


@pytest.mark.parametrize("refusal", REFUSALS)
def test_wait__refused_for_any_reason__the_next_takes_its_count_and_it_comes_once(
    node: Endpoint, relay: Relay, outbox: JournalOutbox, refusal: str
) -> None:
    endpoint = Endpoint.connect(relay.url)
    sender = Sender(endpoint, ACCOUNT, outbox, EAGER)
    refused = sender.send(DEAR)
    lose(node, refused)
    relay.refusal = refusal
    with pytest.raises(ChainError) as caught:
        sender.wait(refused)
    assert not isinstance(caught.value, TransactionLost)
    relay.refusal = None
    mine_at_once(node)
    assert sender.transact(CHEAP).succeeded
    assert sender.transact(DEAR).succeeded
    assert received(node) == 5 * ETHER + 1
    assert endpoint.quantity("eth_getTransactionCount", sender.address, "latest") == 2
    assert outbox.kept() == []
    endpoint.close()


def test_wait__refused_because_its_count_is_used__the_receipts_decide(
    node: Endpoint, relay: Relay, outbox: JournalOutbox
) -> None:
    """Of two nodes behind one endpoint the one that is asked may not know of the block yet."""
    endpoint = Endpoint.connect(relay.url)
    sender = Sender(endpoint, ACCOUNT, outbox, Policy(timeout_seconds=1.0, patience_seconds=0.2))
    sent = sender.send(DEAR)
    lose(node, sent)
    relay.refusal = "nonce too low: next nonce 1, tx nonce 0"
    with pytest.raises(TransactionLost):
        sender.wait(sent)
    assert [signed.digest for signed in outbox.kept()] == [sent.last.digest]
    endpoint.close()


def test_send__an_earlier_one_given_up_is_refused__takes_its_count(
    node: Endpoint, outbox: JournalOutbox
) -> None:
    sender = Sender(node, ACCOUNT, outbox, Policy(timeout_seconds=0.1, patience_seconds=0.2))
    earlier = sender.send(DEAR)
    with pytest.raises(TransactionLost):
        sender.wait(earlier)
    lose(node, earlier)
    impoverish(node)
    mine_at_once(node)
    time.sleep(0.2)
    sent = sender.send(CHEAP)
    assert sent.count == earlier.count == 0
    assert sender.wait(sent).succeeded
    assert received(node) == 1
    assert outbox.kept() == []


def test_send__the_same_was_not_answered_and_is_refused_now__says_why(
    node: Endpoint, outbox: JournalOutbox
) -> None:
    class Interrupted(JournalOutbox):
        broken = True

        def keep(self, signed: Signed) -> None:
            super().keep(signed)
            if self.broken:
                raise ChainUnavailable("no answer")

    interrupted = Interrupted(outbox._journal)
    sender = Sender(node, ACCOUNT, interrupted, EAGER)
    with pytest.raises(ChainUnavailable):
        sender.send(DEAR)
    interrupted.broken = False
    impoverish(node)
    with pytest.raises(ChainError, match="cannot pay"):
        sender.send(DEAR)
    assert outbox.kept() == []


def test_wait__what_came_before_is_refused__does_not_wait_for_it(
    node: Endpoint, outbox: JournalOutbox
) -> None:
    sender = Sender(node, ACCOUNT, outbox, EAGER)
    refused, behind = sender.send(DEAR), sender.send(CHEAP)
    lose(node, refused)
    impoverish(node)
    mine_at_once(node)
    assert sender.wait(behind).succeeded
    assert behind.count == 1
    assert received(node) == 1


def test_settle__what_an_earlier_process_sent_first_is_refused__the_second_comes_once(
    node: Endpoint, outbox: JournalOutbox
) -> None:
    killed = Sender(node, ACCOUNT, outbox, PATIENT)
    refused, _ = killed.send(DEAR), killed.send(CHEAP)
    lose(node, refused)
    impoverish(node)
    mine_at_once(node)
    restarted = Sender(node, ACCOUNT, outbox, EAGER)
    restarted.settle()
    assert received(node) == 1
    assert restarted.transact(Call("next", NOBODY, b"", 10)).succeeded
    assert received(node) == 11
    assert outbox.kept() == []


def test_send__the_node_wants_more_for_gas__says_so(node: Endpoint, relay: Relay) -> None:
    endpoint = Endpoint.connect(relay.url)
    relay.refusal = "transaction underpriced: gas tip cap 1, minimum needed 2"
    with pytest.raises(ChainError, match="transaction underpriced"):
        Sender(endpoint, ACCOUNT).send(CHEAP)
    endpoint.close()
