"""Which tasks a publisher serves keys for, whatever became of the block it was told of.

A reorganisation shows in the end: the chain has another id for the task than the journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from one_round import PARAMETERS

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.hashing import key_hash_of
from pouw.journal import Journal
from pouw.roles.base import Notice, Setup
from pouw.roles.drafts import Draft, Drafts
from pouw.roles.publisher import Publisher
from pouw.storage.local import LocalStore
from pouw.types import TaskId

CONFIRMATIONS = 3
OURS = Draft(digest=b"d" * 32, test_key=b"k" * 32, title="hearts")
THEIRS = Draft(digest=b"e" * 32, test_key=b"l" * 32, title="livers")
FIRST, SECOND = TaskId(1), TaskId(2)


class World:
    """A chain on which somebody else publishes too, and a publisher with a journal."""

    def __init__(self, endpoint: Endpoint, home: Path, journal: Journal) -> None:
        self.endpoint = endpoint
        self.arena = deploy(Sender(endpoint, dev_account(1)), PARAMETERS)
        self.other = ArenaClient(Sender(endpoint, dev_account(2)), self.arena.address)
        self.drafts = Drafts(journal)
        self.drafts.add(OURS, ())
        self.notices: list[Notice] = []
        store = LocalStore(home / "store")
        self.setup = Setup(self.arena, store, home, journal, CONFIRMATIONS, 0, self.notices.append)

    def publish(self, client: ArenaClient, draft: Draft) -> TaskId:
        return client.publish(draft.digest, key_hash_of(draft.test_key), 500_000, 100)

    def tell(self, draft: Draft, task_id: TaskId) -> None:
        self.drafts.mark_told(draft, task_id, self.endpoint.block_number())

    def confirm(self) -> None:
        for _ in range(CONFIRMATIONS - 1):
            self.endpoint.request("evm_mine")

    def served(self) -> list[TaskId]:
        """The tasks that a publisher serves which was just started."""
        role = Publisher(self.setup, inline=True)
        role.run_once()
        tasks: list[TaskId] = role.run_once().data["tasks"]
        role.close()
        return tasks


@pytest.fixture
def forking(anvil_url: str, tmp_path: Path) -> Iterator[World]:
    """The same on a chain that takes blocks back."""
    endpoint = Endpoint.connect(anvil_url)
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield World(endpoint, tmp_path, journal)
    endpoint.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with (
        Devnet(tmp_path / "chain", port=0, block_seconds=0) as devnet,
        Journal(tmp_path / "journal.sqlite") as journal,
    ):
        endpoint = Endpoint.connect(devnet.url)
        yield World(endpoint, tmp_path, journal)
        endpoint.close()


def test_publisher__reorganised_to_another_id__serves_that_and_says_so_once(world: World) -> None:
    assert world.publish(world.other, THEIRS) == FIRST
    assert world.publish(world.arena, OURS) == SECOND
    world.tell(OURS, FIRST)
    world.confirm()

    assert world.served() == world.served() == [SECOND]

    (kept,) = world.drafts.all()
    assert (kept.task_id, kept.told) == (SECOND, True)
    (notice,) = world.notices
    assert notice.level == "warning"
    assert "task 1 is task 2 now" in notice.text


def test_publisher__publication_not_confirmed__serves_what_it_was_told(world: World) -> None:
    world.tell(OURS, world.publish(world.arena, OURS))
    assert world.served() == [FIRST]
    world.confirm()
    assert world.served() == [FIRST]
    assert not world.notices


def test_publisher__damaged_where_no_key_lies__serves_its_tasks_and_says_so(
    world: World, tmp_path: Path
) -> None:
    world.tell(OURS, world.publish(world.arena, OURS))
    for number in range(3_000):
        world.setup.journal.put("told", f"elsewhere/round {number}", True)
    world.setup.journal.close()
    file = tmp_path / "journal.sqlite"
    pages = bytearray(file.read_bytes())
    last = pages.rindex(b"told") // 4096 * 4096
    pages[last : last + 64] = b"\xff" * 64
    file.write_bytes(pages)

    with Journal(file) as journal:
        world.setup = replace(world.setup, journal=journal)
        assert world.served() == [FIRST]
    (notice,) = world.notices
    assert notice.level == "warning"
    assert "damaged" in notice.text


def test_publisher__id_went_to_somebody_else__is_not_served(world: World) -> None:
    world.publish(world.other, THEIRS)
    world.tell(OURS, FIRST)
    world.confirm()
    assert world.served() == []
    assert [notice.level for notice in world.notices] == ["warning"]


def test_publisher__same_spec_by_somebody_else__is_not_ours(world: World) -> None:
    world.publish(world.other, OURS)
    world.confirm()
    assert world.served() == []


def test_publisher__published_twice__serves_what_it_was_told(world: World) -> None:
    world.publish(world.arena, OURS)
    world.tell(OURS, world.publish(world.arena, OURS))
    world.confirm()
    assert world.served() == [SECOND]


def test_publisher__publication_taken_back__says_so_once_and_serves_it_when_it_returns(
    forking: World,
) -> None:
    snapshot = forking.endpoint.request("evm_snapshot")
    forking.tell(OURS, forking.publish(forking.arena, OURS))
    assert forking.served() == [FIRST]
    assert forking.endpoint.request("evm_revert", snapshot)
    forking.confirm()
    assert forking.served() == [FIRST], "the block it was told of is not confirmed"
    assert not forking.notices

    forking.confirm()
    assert forking.served() == forking.served() == []

    (notice,) = forking.notices
    assert notice.level == "warning"
    assert "task 1 is gone" in notice.text
    assert "pouw publisher publish" in notice.data["hint"]
    assert [draft.told for draft in forking.drafts.all()] == [False]

    forking.publish(forking.arena, OURS)
    forking.confirm()
    assert forking.served() == [FIRST]
    assert forking.notices[-1].level == "info"


def test_publisher__endpoint_that_leaves_out_logs__is_not_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.tell(OURS, world.publish(world.arena, OURS))
    world.confirm()
    with monkeypatch.context() as forgetful:
        forgetful.setattr(ArenaClient, "events", lambda *_: [])
        assert world.served() == [FIRST]
    assert world.served() == [FIRST]
    assert not world.notices


@pytest.mark.parametrize("cancelled", [False, True])
def test_publisher__from_block_after_the_publication__is_not_gone(
    world: World, cancelled: bool
) -> None:
    world.publish(world.other, THEIRS)
    world.tell(OURS, world.publish(world.arena, OURS))
    if cancelled:
        world.arena.cancel(SECOND)
    world.endpoint.request("evm_mine")
    world.setup = replace(world.setup, from_block=world.endpoint.block_number())
    world.confirm()
    assert world.served() == [SECOND]
    assert not world.notices


def test_publisher__publication_moved_to_a_block_to_be_confirmed__is_not_gone(
    forking: World,
) -> None:
    snapshot = forking.endpoint.request("evm_snapshot")
    forking.tell(OURS, forking.publish(forking.arena, OURS))
    assert forking.endpoint.request("evm_revert", snapshot)
    forking.confirm()
    forking.confirm()
    forking.publish(forking.other, THEIRS)
    forking.publish(forking.arena, OURS)

    forking.served()
    assert not forking.notices
    forking.confirm()
    assert forking.served() == [SECOND]
