"""`pouw publisher top-up` and `cancel`, against a real chain, killed half-way included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Call, Sender
from pouw.cli.main import main
from pouw.errors import ChainUnavailable
from pouw.hashing import data_key_of, key_hash_of
from pouw.journal import Journal
from pouw.types import Address, TaskId

ETHER = 10**18
TEST_KEY = b"\x07" * 32
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def client(arena: str, rpc: str) -> ArenaClient:
    """The publisher's own view of the arena."""
    return ArenaClient.connect(rpc, arena, dev_account(0))


@pytest.fixture
def pooled(client: ArenaClient) -> tuple[TaskId, TaskId]:
    """Two tasks of half an ether and one ether, behind one that is selected."""
    half, whole = ETHER // 2, ETHER
    ids = [
        client.publish(bytes([place]) * 32, key_hash_of(TEST_KEY), 800_000, reward)
        for place, reward in enumerate((half, half, whole))
    ]
    assert client.pool() == [3, 2]
    return ids[1], ids[2]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*words, "--json"]) == 0, capsys.readouterr().err
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return command


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def command(*words: str) -> str:
        capsys.readouterr()
        assert main(list(words)) in (1, 2)
        shown = capsys.readouterr().err
        assert "Traceback" not in shown
        return shown

    return command


def test_top_up__past_another__is_the_new_head(
    client: ArenaClient, pooled: tuple[TaskId, TaskId], run: Run
) -> None:
    document = run("publisher", "top-up", "2", "--amount", "0.6ether")
    assert document == {
        "task": 2,
        "reward_wei": str(11 * ETHER // 10),
        "bond_wei": str(11 * ETHER // 100),
        "paid_wei": str(66 * ETHER // 100),
    }
    assert client.pool() == [2, 3]
    assert client.task(TaskId(2)).reward == 11 * ETHER // 10


def test_top_up__twice_on_purpose__pays_twice(
    client: ArenaClient, pooled: tuple[TaskId, TaskId], run: Run
) -> None:
    for _ in range(2):
        run("publisher", "top-up", "3", "--amount", "1wei")
    assert client.task(TaskId(3)).reward == ETHER + 2


def test_top_up__killed_after_it_was_sent__run_again_pays_once(
    client: ArenaClient,
    pooled: tuple[TaskId, TaskId],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The receipt never comes back to the first run: its outbox and its intent do."""

    def unplugged(*_: object) -> None:
        raise ChainUnavailable("the cable was pulled")

    with monkeypatch.context() as cable:
        cable.setattr("pouw.chain.tx.Sender.wait", unplugged)
        assert main(["publisher", "top-up", "2", "--amount", "0.1ether"]) == 1
    assert client.task(TaskId(2)).reward == 6 * ETHER // 10
    document = run("publisher", "top-up", "2", "--amount", "0.1ether")
    assert document["paid_wei"] == "0"
    assert client.task(TaskId(2)).reward == 6 * ETHER // 10


def test_top_up__killed_before_it_was_sent__run_again_pays(
    client: ArenaClient,
    pooled: tuple[TaskId, TaskId],
    run: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unplugged(*_: object, **__: object) -> None:
        raise ChainUnavailable("the cable was pulled")

    with monkeypatch.context() as cable:
        cable.setattr("pouw.chain.tx.Sender.send", unplugged)
        assert main(["publisher", "top-up", "2", "--amount", "0.1ether"]) == 1
    with Journal(folder / "home" / "journal.sqlite") as journal:
        assert journal.get("top-ups", f"{client.address}/2")["reward_wei"] == 6 * ETHER // 10
    run("publisher", "top-up", "2", "--amount", "0.1ether")
    assert client.task(TaskId(2)).reward == 6 * ETHER // 10


def test_top_up__nothing__is_a_usage_error(
    pooled: tuple[TaskId, TaskId], refused: Callable[..., str]
) -> None:
    assert "more than nothing" in refused("publisher", "top-up", "2", "--amount", "0")


def test_cancel__pooled__money_is_credit_and_again_says_the_same(
    client: ArenaClient, pooled: tuple[TaskId, TaskId], run: Run
) -> None:
    expected = {"task": 3, "credited_wei": str(11 * ETHER // 10)}
    assert run("publisher", "cancel", "3") == expected
    assert client.pool() == [2]
    assert client.credit(Address(dev_account(0).address)) == 11 * ETHER // 10
    assert run("publisher", "cancel", "3") == expected
    assert run("withdraw")["transaction"].startswith("0x")


@pytest.mark.parametrize("words", [("cancel", "{}"), ("top-up", "{}", "--amount", "1wei")])
def test_call__on_a_task_not_pooled__says_what_became_of_it(
    words: tuple[str, ...],
    client: ArenaClient,
    pooled: tuple[TaskId, TaskId],
    refused: Callable[..., str],
) -> None:
    def said(task: int) -> str:
        return refused("publisher", *(word.format(task) for word in words))

    assert "does not exist" in said(9)
    assert "it is selected" in said(1)
    client.cancel(TaskId(3))
    assert "was cancelled" in said(3)
    client.endpoint.request("evm_increaseTime", client.parameters().phase2)
    client.endpoint.request("evm_mine")
    client.release_data_key(data_key_of(TEST_KEY))
    assert "its round, number 1, has begun" in said(1)
    parameters = client.parameters()
    client.endpoint.request("evm_increaseTime", parameters.phase1)
    client.endpoint.request("evm_mine")
    client.sync()
    client.endpoint.request("evm_increaseTime", parameters.phase2 + parameters.key_window)
    client.endpoint.request("evm_mine")
    client.sync()
    assert "it was dropped" in said(2)


def test_call__on_the_task_of_another__names_both(
    client: ArenaClient, pooled: tuple[TaskId, TaskId], rpc: str, refused: Callable[..., str]
) -> None:
    other = ArenaClient(Sender(client.endpoint, dev_account(1)), client.address)
    other.publish(b"\x01" * 32, key_hash_of(TEST_KEY), 0, ETHER)
    shown = refused("publisher", "cancel", "4")
    assert dev_account(0).address in shown
    assert dev_account(1).address in shown


def test_command__started_while_another_transaction_hangs__waits_for_it_first(
    client: ArenaClient, pooled: tuple[TaskId, TaskId], run: Run, folder: Path, rpc: str
) -> None:
    """What an earlier command left in its outbox is on the chain before a new one looks."""
    from pouw.roles.outbox import JournalOutbox

    nobody = Address("0x" + "13" * 20)
    endpoint = Endpoint.connect(rpc)
    with Journal(folder / "home" / "journal.sqlite") as journal:

        class Killed(JournalOutbox):
            def keep(self, signed: Any) -> None:
                super().keep(signed)
                raise ChainUnavailable("killed")

        with pytest.raises(ChainUnavailable):
            Sender(endpoint, dev_account(0), Killed(journal)).send(Call("gift", nobody, b"", 5))
    run("publisher", "cancel", "2")
    assert endpoint.quantity("eth_getBalance", nobody, "latest") == 5
    endpoint.close()
