from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from eth_abi import encode

from pouw.chain.abi import artifact, reverted
from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient
from pouw.chain.devnet import Devnet
from pouw.chain.fees import Fees
from pouw.chain.outgoing import Outgoing, Policy, Signed
from pouw.chain.reading import ArenaReader
from pouw.chain.rpc import Endpoint, shown_url
from pouw.chain.tx import Call, Sender, call
from pouw.errors import ChainError, ChainUnavailable, ConfigError, Reverted, TransactionLost
from pouw.journal import Journal
from pouw.roles.outbox import JournalOutbox
from pouw.types import Address

NOBODY = Address("0x" + "11" * 20)
TRANSFER = Call("transfer", NOBODY, b"", 1)
FORM = {"type": 2, "chainId": 31337, "nonce": 7, "gas": 21_000, "to": NOBODY}
SIGNED = Signed.sign(dev_account(1), FORM, Fees(10**9, 1))


class _Stranger:
    """An endpoint that answers what it likes."""

    def __init__(self) -> None:
        self.body: bytes = b"{}"
        stranger = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", str(len(stranger.body)))
                self.end_headers()
                self.wfile.write(stranger.body)

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answers(self, result: Any) -> None:
        self.body = json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).encode()


@pytest.fixture
def stranger() -> Iterator[_Stranger]:
    made = _Stranger()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_transact__is_kept_before_it_leaves_and_until_it_is_confirmed(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    seen: list[bytes] = []

    class Watched(JournalOutbox):
        def keep(self, signed: Signed) -> None:
            super().keep(signed)
            assert endpoint.request("eth_getTransactionByHash", "0x" + signed.digest.hex()) is None
            assert self.kept() == [signed]
            seen.append(signed.digest)

    with Journal(tmp_path / "journal.sqlite") as journal:
        outbox = Watched(journal)
        receipt = Sender(endpoint, dev_account(1), outbox).transact(TRANSFER)
        assert seen == [receipt.transaction_hash]
        assert outbox.kept() == []


def test_resend__of_a_transaction_that_is_on_chain__succeeds(endpoint: Endpoint) -> None:
    sender = Sender(endpoint, dev_account(1))
    sent = sender.send(TRANSFER)
    sender.resend(sent.last)
    receipt = sender.wait(sent)
    sender.resend(sent.last)
    assert sender.receipt(sent.last.digest) == receipt
    assert endpoint.quantity("eth_getBalance", NOBODY, "latest") == 1


def test_send__from_threads_and_two_senders_of_one_account__all_land(
    endpoint: Endpoint,
) -> None:
    # Equal calls at an equal count are one transaction: each thread sends its own amount.
    senders = [Sender(endpoint, dev_account(1)) for _ in range(2)]
    failures: list[BaseException] = []

    def send(index: int) -> None:
        try:
            for _ in range(3):
                senders[index % 2].transact(Call("transfer", NOBODY, b"", 10**index))
        except (ChainUnavailable, TransactionLost) as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert endpoint.quantity("eth_getBalance", NOBODY, "latest") == 3333


def test_send__several_in_one_block__each_has_its_own_count(devnet: Devnet) -> None:
    endpoint = Endpoint.connect(devnet.url)
    sender = Sender(endpoint, dev_account(1))
    sent = [sender.send(TRANSFER) for _ in range(5)]
    receipts = [sender.wait(one) for one in sent]
    assert len({receipt.transaction_hash for receipt in receipts}) == 5
    assert len({receipt.block_number for receipt in receipts}) < 5
    endpoint.close()


def test_send__the_chain_was_gone_while_it_was_waited_for__is_not_sent_twice(
    tmp_path: Path,
) -> None:
    with Devnet(tmp_path / "chain", port=0) as devnet:
        port = devnet.port
        endpoint = Endpoint.connect(devnet.url)
        sender = Sender(endpoint, dev_account(1))
        sent = sender.send(TRANSFER)
    with pytest.raises(ChainUnavailable):
        sender.wait(sent)
    with Devnet(tmp_path / "chain", port=port):
        assert sender.transact(TRANSFER).transaction_hash == sent.last.digest
        assert endpoint.quantity("eth_getBalance", NOBODY, "latest") == 1
    endpoint.close()


def test_transact__included_and_failed__says_why(clients: list[ArenaClient]) -> None:
    sender = clients[3].sender
    forced = _Forced(sender.endpoint, sender.account)
    with pytest.raises(Reverted) as caught:
        forced.transact(clients[3].prepared("withdraw", sender.address))
    assert caught.value.name == "NothingToWithdraw"
    assert caught.value.arguments == {"account": sender.address}


class _Forced(Sender):
    """A sender that skips the estimate, as if the chain had changed after it."""

    def _gas(self, what: Call) -> int:
        return 500_000


def test_wait__for_what_was_never_sent__is_lost_with_a_hint(endpoint: Endpoint) -> None:
    sender = Sender(endpoint, dev_account(1), policy=Policy(timeout_seconds=0.3))
    with pytest.raises(TransactionLost) as caught:
        sender.wait(Outgoing([SIGNED], left=math.inf))
    assert caught.value.hint


def test_wait__for_confirmations__returns_when_the_blocks_stand(tmp_path: Path) -> None:
    with Devnet(tmp_path, port=0) as devnet:
        endpoint = Endpoint.connect(devnet.url)
        receipt = Sender(endpoint, dev_account(1), policy=Policy(confirmations=3)).transact(
            TRANSFER
        )
        assert endpoint.block_number() >= receipt.block_number + 2
        endpoint.close()


def test_endpoint__that_is_not_there__is_named_without_its_secrets() -> None:
    endpoint = Endpoint.connect("http://user:secret@127.0.0.1:9/v2/key?token=x")
    with pytest.raises(ChainUnavailable) as caught:
        endpoint.chain_id()
    text = str(caught.value) + str(caught.value.hint)
    assert "http://127.0.0.1:9 " in text
    assert not any(word in text for word in ("user", "secret", "key", "token"))
    endpoint.close()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8545", "file:///etc/passwd", "ws://127.0.0.1:1"])
def test_endpoint__of_another_kind__is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Endpoint.connect(url)


def test_shown_url__keeps_scheme_host_and_port() -> None:
    assert shown_url("https://a:b@node.example/key") == "https://node.example"
    assert shown_url("http://[::1]:8545/") == "http://[::1]:8545"
    assert shown_url("http://node.example:99999/") == "http://node.example"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b"7", b'{"jsonrpc": "2.0"}', b"\xff\xfe", b"[" * 5000],
)
def test_endpoint__that_talks_nonsense__is_unavailable(stranger: _Stranger, body: bytes) -> None:
    stranger.body = body
    endpoint = Endpoint.connect(stranger.url)
    with pytest.raises(ChainUnavailable):
        endpoint.chain_id()
    endpoint.close()


@pytest.mark.parametrize(
    "result", [None, [], {}, "0x", "0xzz", "7", -1, 1.5, True, "0x" + "f" * 80, "0x" + "00" * 31]
)
def test_reads__of_malformed_results__are_unavailable(stranger: _Stranger, result: Any) -> None:
    stranger.answers(result)
    endpoint = Endpoint.connect(stranger.url)
    reader, sender = ArenaReader(endpoint, NOBODY), Sender(endpoint, dev_account(0))
    reads: list[Callable[[], Any]] = [
        reader.state,
        reader.parameters,
        lambda: endpoint.timestamp("latest"),
        lambda: sender.resend(SIGNED),
        lambda: reader.round(1),
        lambda: reader.entry(1, NOBODY),
    ]
    if result != []:
        reads.append(lambda: reader.events(0, 1))
    if result is not None:
        reads.append(lambda: sender.receipt(b"\x01" * 32))
    for read in reads:
        with pytest.raises(ChainUnavailable):
            read()
    endpoint.close()


def test_reverted__of_every_custom_error__names_it_and_helps() -> None:
    for selector, error in artifact().errors.items():
        if not error.fields:
            assert reverted(selector).name == error.name
    own = {error.name for error in artifact().errors.values()}
    foreign = {"InvalidShortString", "StringTooLong", "NothingToAdd"}
    assert {name for name in own - foreign if reverted(_sample(name)).hint is None} == set()


def _sample(name: str) -> bytes:
    selector, error = next(item for item in artifact().errors.items() if item[1].name == name)
    blank = {"string": "", "address": NOBODY, "bytes32": bytes(32)}
    values = [blank.get(kind, 1) for _, kind in error.fields]
    return selector + encode([kind for _, kind in error.fields], values)


def test_reverted__of_unknown_or_broken_bytes__is_still_an_answer() -> None:
    assert reverted(None).name == "without a reason"
    assert reverted(b"\x01\x02\x03\x04").name == "unknown error"
    assert reverted(_sample("TooEarly")[:20]).name == "malformed error"
    text = bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + (2).to_bytes(32, "big")
    assert reverted(text + b"no".ljust(32, b"\0")).arguments == {"reason": "no"}


def test_call__that_reverts__raises_the_custom_error(clients: list[ArenaClient]) -> None:
    message = clients[1].prepared("finalize").message(clients[1].sender.address)
    with pytest.raises(Reverted) as caught:
        call(clients[1].endpoint, message)
    assert caught.value.name == "NotLive"


def test_prepared__arguments_that_do_not_fit__say_so(clients: list[ArenaClient]) -> None:
    with pytest.raises(ChainError, match="commit does not take"):
        clients[1].prepared("commit", -1, b"\x01" * 32)
    with pytest.raises(ChainError, match="commit does not take"):
        clients[1].prepared("commit", 1, b"\x01" * 33)


def test_transact__blocks_taken_back_before__uses_the_counts_that_are_free_again(
    anvil_url: str,
) -> None:
    endpoint = Endpoint.connect(anvil_url)
    sender = Sender(endpoint, dev_account(0))
    sender.transact(TRANSFER)
    snapshot = endpoint.request("evm_snapshot")
    for _ in range(2):
        sender.transact(TRANSFER)
    assert endpoint.request("evm_revert", snapshot)
    endpoint.request("anvil_mine", "0x3")

    sender.transact(TRANSFER)

    assert endpoint.quantity("eth_getTransactionCount", sender.address, "latest") == 2
    endpoint.close()


def test_send__a_count_that_was_free_again_is_used__passes_over_those_that_wait(
    anvil_url: str,
) -> None:
    endpoint = Endpoint.connect(anvil_url)
    sender = Sender(endpoint, dev_account(0), policy=Policy(patience_seconds=2))
    sender.transact(TRANSFER)
    snapshot = endpoint.request("evm_snapshot")
    sender.transact(TRANSFER)
    endpoint.request("evm_setAutomine", False)
    waiting = sender.send(TRANSFER)
    assert endpoint.request("evm_revert", snapshot)
    endpoint.request("anvil_mine", "0x3")
    endpoint.request("anvil_dropAllTransactions")

    sent = [sender.send(Call("transfer", NOBODY, b"", value)) for value in (10, 100)]

    assert [out.count for out in (waiting, *sent)] == [2, 1, 3]
    endpoint.request("evm_setAutomine", True)
    assert all(sender.wait(out).succeeded for out in (*sent, waiting))
    assert endpoint.quantity("eth_getBalance", NOBODY, "latest") == 112
    endpoint.close()


def test_settle__a_transaction_waits_that_no_outbox_knows_of__is_waited_for(anvil_url: str) -> None:
    """As one that a reorganisation put back among those that wait."""
    endpoint = Endpoint.connect(anvil_url)
    endpoint.request("evm_setAutomine", False)
    Sender(endpoint, dev_account(0)).send(TRANSFER)
    sender = Sender(endpoint, dev_account(0), policy=Policy(timeout_seconds=0.5))

    with pytest.raises(TransactionLost, match="waits to be included"):
        sender.settle()
    endpoint.request("evm_mine")
    sender.settle()

    endpoint.close()
