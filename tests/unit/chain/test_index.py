"""The index against anvil, which can take blocks back."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pouw.chain.abi import artifact
from pouw.chain.accounts import dev_account
from pouw.chain.index import EventIndex
from pouw.chain.reading import ArenaReader
from pouw.chain.rpc import Endpoint, EndpointRefused
from pouw.chain.tx import Call, Receipt, Sender
from pouw.errors import ChainUnavailable, JournalError
from pouw.events import Event, TaskDropped

TOPIC = next(item for item in artifact().events.values() if item.name == "TaskDropped").topic
# Emits TaskDropped(number of the block) whenever it is called.
CODE = b"\x43\x7f" + TOPIC + bytes.fromhex("5f5fa200")


class Limited(Endpoint):
    """An endpoint that gives logs of ten blocks at most, and counts what it is asked."""

    asked: int = 0
    batches: bool = True
    fails_after: int | None = None

    def send_many(
        self, method: str, calls: Sequence[Sequence[Any]], kind: Any, on_sent: Any = None
    ) -> Any:
        if len(calls) > 1 and not self.batches:
            raise EndpointRefused(self.url, -32600, "batches are not supported", None)
        reading = super().send_many(method, calls, kind, on_sent)

        def read() -> list[Any]:
            answers = reading()
            for place, params in enumerate(calls):
                try:
                    self._count(params)
                except EndpointRefused as refused:
                    answers[place] = refused
            return answers

        return read

    def _count(self, params: Sequence[Any]) -> None:
        if self.fails_after is not None and self.asked >= self.fails_after:
            raise ChainUnavailable("the cable was pulled")
        self.asked += 1
        if int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) >= 10:
            raise EndpointRefused(self.url, -32005, "block range is limited to 10", None)


class World:
    """A contract on anvil that logs, and readers of it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.endpoint = Endpoint.connect(url)
        creation = bytes.fromhex(f"60{len(CODE):02x}80600b5f395ff3")
        receipt = self.send(Call("log", None, creation.ljust(11, b"\x00")[:11] + CODE))
        assert receipt.created is not None
        self.arena, self.first = receipt.created, receipt.block_number

    def send(self, call: Call) -> Receipt:
        # A new sender each time: blocks that are taken back take its count back, too.
        return Sender(self.endpoint, dev_account(0)).transact(call)

    def emit(self, count: int = 1) -> None:
        for _ in range(count):
            self.send(Call("log", self.arena, b""))

    def mine(self, blocks: int) -> None:
        self.endpoint.request("anvil_mine", hex(blocks))

    def index(self, endpoint: Endpoint | None = None) -> EventIndex:
        reader = ArenaReader(endpoint or self.endpoint, self.arena)
        return EventIndex(self.folder, reader, self.first)

    def truth(self) -> list[Event]:
        reader = ArenaReader(self.endpoint, self.arena)
        return reader.events(self.first, self.endpoint.block_number())


@pytest.fixture
def world(anvil_url: str, tmp_path: Path) -> World:
    return World(anvil_url, tmp_path)


def test_sync__twice__reads_only_what_is_new(world: World) -> None:
    world.emit(3)
    index = world.index()
    assert index.block is None
    assert index.sync(1).new_events == 3
    world.emit(2)
    done = world.index().sync(1)
    assert (done.new_events, done.taken_back) == (2, 0)
    assert list(index.events()) == world.truth()
    assert index.block == world.endpoint.block_number()


def test_sync__unconfirmed_blocks__are_left_for_later(world: World) -> None:
    world.emit(2)
    index = world.index()
    assert index.sync(2).new_events == 1
    world.mine(1)
    assert index.sync(2).new_events == 1


def test_sync__after_a_reorganisation__holds_the_new_chain_only(world: World) -> None:
    world.emit(2)
    snapshot = world.endpoint.request("evm_snapshot")
    world.emit(3)
    index = world.index()
    index.sync(1)
    assert world.endpoint.request("evm_revert", snapshot)
    world.mine(1)
    world.emit(4)

    done = world.index().sync(1)

    assert (done.taken_back, done.new_events) == (3, 4)
    found = list(index.events())
    assert found == world.truth()
    assert len(found) == 6


def test_sync__chain_replaced_from_the_start__reads_everything_again(world: World) -> None:
    snapshot = world.endpoint.request("evm_snapshot")
    world.emit(3)
    index = world.index()
    index.sync(1)
    assert world.endpoint.request("evm_revert", snapshot)
    world.mine(5)
    done = index.sync(1)
    assert (done.taken_back, list(index.events())) == (4, [])
    world.emit()
    assert index.sync(1).new_events == 1


def test_sync__endpoint_behind_the_index__keeps_it_and_says_so(world: World) -> None:
    world.emit(2)
    snapshot = world.endpoint.request("evm_snapshot")
    world.mine(3)
    index = world.index()
    index.sync(1)
    assert world.endpoint.request("evm_revert", snapshot)
    with pytest.raises(ChainUnavailable, match="the index at") as caught:
        index.sync(1)
    assert "caught up" in str(caught.value.hint)
    assert len(list(index.events())) == 2


@pytest.mark.parametrize("batches", [True, False])
def test_sync__endpoint_that_limits_ranges__finds_the_width_and_remembers_it(
    world: World, *, batches: bool
) -> None:
    for _ in range(4):
        world.emit()
        world.mine(30)
    endpoint = Limited.connect(world.url)
    assert isinstance(endpoint, Limited)
    endpoint.batches = batches
    world.index(endpoint).sync(1)
    assert list(world.index().events()) == world.truth()

    world.mine(40)
    endpoint.asked = 0
    world.index(endpoint).sync(1)
    assert endpoint.asked <= 16  # forty blocks in tens at best, without guessing again


def test_sync__broken_off__goes_on_where_it_was(world: World) -> None:
    for _ in range(4):
        world.emit()
        world.mine(30)
    endpoint = Limited.connect(world.url)
    assert isinstance(endpoint, Limited)
    endpoint.batches, endpoint.fails_after = False, 10
    index = world.index(endpoint)
    with pytest.raises(ChainUnavailable, match="cable"):
        index.sync(1)
    kept = list(index.events())
    assert 0 < len(kept) < 4
    endpoint.fails_after = None
    done = index.sync(1)
    assert done.new_events == 4 - len(kept)
    assert list(index.events()) == world.truth()


def test_sync__progress__ends_at_the_end(world: World) -> None:
    world.emit(2)
    seen: list[tuple[int, int]] = []
    world.index().sync(1, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)


def test_events__damaged_file__says_what_to_do(world: World) -> None:
    world.emit()
    index = world.index()
    index.sync(1)
    index._database.execute("UPDATE logs SET words = x'00'")
    with pytest.raises(JournalError, match="damaged"):
        list(index.events())
    index.close()
    index.path.write_bytes(b"something else" * 100)
    with pytest.raises(JournalError, match="cannot use the index"):
        world.index()


def test_events__are_typed(world: World) -> None:
    world.emit()
    index = world.index()
    index.sync(1)
    (event,) = index.events()
    assert isinstance(event, TaskDropped)
    assert event.task_id == event.block_number


def test_sync__asked_to_begin_earlier__reads_what_it_lacks(world: World) -> None:
    world.emit(4)
    late = EventIndex(world.folder, ArenaReader(world.endpoint, world.arena), world.first + 3)
    assert late.sync(1).new_events == 2
    late.close()
    index = world.index()
    assert index.sync(1).new_events == 4
    assert list(index.events()) == world.truth()
    index.close()
    # An index that holds more than is asked for keeps it.
    late = EventIndex(world.folder, ArenaReader(world.endpoint, world.arena), world.first + 3)
    assert (late.sync(1).new_events, late.count()) == (0, 4)


class Changing(Endpoint):
    """An endpoint whose chain becomes another once its logs were read."""

    change: Any = None

    def send_many(
        self, method: str, calls: Sequence[Sequence[Any]], kind: Any, on_sent: Any = None
    ) -> Any:
        reading = super().send_many(method, calls, kind, on_sent)

        def read() -> Any:
            answers = reading()
            self.change()
            return answers

        return read


@pytest.mark.parametrize("mined_after", [0, 1])
def test_sync__chain_changes_while_it_is_read__keeps_nothing_of_the_old_one(
    world: World, mined_after: int
) -> None:
    snapshot = world.endpoint.request("evm_snapshot")
    world.emit(2)
    world.mine(mined_after)

    def change() -> None:
        assert world.endpoint.request("evm_revert", snapshot)
        world.endpoint.request("evm_setNextBlockTimestamp", 4_000_000_000)
        world.emit(2)
        world.mine(mined_after)

    endpoint = Changing.connect(world.url)
    endpoint.change = change
    index = world.index(endpoint)
    with pytest.raises(ChainUnavailable, match="changed while it was read"):
        index.sync(1)
    assert world.index().sync(1).new_events == 2
    assert list(index.events()) == world.truth()


def test_index__of_an_older_form__is_read_again(world: World) -> None:
    world.emit(2)
    index = world.index()
    index.close()
    with sqlite3.connect(index.path) as database:
        database.executescript(
            "PRAGMA user_version = 0; DROP TABLE cursor; CREATE TABLE cursor (one, block);"
        )
    assert world.index().sync(1).new_events == 2
