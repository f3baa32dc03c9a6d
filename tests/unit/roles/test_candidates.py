"""Revealed models that are slow, missing, or cannot be kept: none keeps the others waiting."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_task import tiny_spec

from pouw import hashing
from pouw.documents import Checkpoint, Judged, Manifest, ModelFile, Provenance, Recipe
from pouw.errors import ContentError, ContentNotFound
from pouw.events import Revealed
from pouw.journal import Journal
from pouw.roles.base import FETCHES, Errands, Setup
from pouw.roles.candidates import Candidates, Missing
from pouw.roles.keeping import Keeper
from pouw.roles.patience import Patience
from pouw.roles.provenance import Provenance as Checkpoints
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors
from pouw.storage.store import Store
from pouw.types import Address, RoundNumber, Task, TaskId

NUMBER, DATA_KEY = RoundNumber(1), bytes(32)
NOW = 1_000_000
SPEC = tiny_spec(provenance=Provenance(policy="none"))
PATIENCE_SECONDS = 20.0


class Strangers(LocalStore):
    """A store whose content of some miners comes late, never, or does not fit on the disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.served = threading.Event()
        self.slow: set[str] = set()
        self.unfit: set[str] = set()
        self.looked_up: list[str] = []

    def get_bytes(self, cid: str, limit: int = 1 << 20) -> bytes:
        self.looked_up.append(cid)
        if cid in self.slow:
            self.served.wait(PATIENCE_SECONDS)
        return super().get_bytes(cid, limit)

    def get_file(self, cid: str, destination: Path, size: int) -> None:
        if cid in self.unfit:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise ContentError(f"cannot write {destination}") from full
        super().get_file(cid, destination, size)


class World:
    def __init__(self, folder: Path, journal: Journal) -> None:
        self.store = Strangers(folder / "store")
        self.said: list[str] = []
        setup: Any = Setup(
            None, self.store, folder, journal, 1, 0, lambda notice: self.said.append(notice.text)
        )
        self.errands = Errands(setup)
        task: Any = Task(
            TaskId(1), _address(99), 0, NUMBER, False, False, 1, 0, 0, SPEC.digest(), b""
        )
        self.candidates = Candidates(
            setup,
            self.errands,
            NUMBER,
            task,
            SPEC,
            Checkpoints(setup),
            DATA_KEY,
            Keeper(setup, self.errands),
            Patience(now=NOW, late=NOW + 100, last_look=NOW, asked_by=NOW, archives_by=NOW),
        )

    def reveal(self, miner: int, *, served: bool = True) -> tuple[Revealed, Manifest]:
        model = self.store.put_bytes(b"model %d" % miner)
        manifest = Manifest(
            task=1,
            round=1,
            miner=_address(miner),
            network=SPEC.network,
            model=ModelFile(cid=model, bytes=len(b"model %d" % miner), dtype="float32"),
            checkpoints=(),
            seed="0x" + hashing.round_seed(DATA_KEY, NUMBER, _address(miner)).hex(),
            recipe=Recipe(engine={}, settings={}),
            software="test",
            device="test",
        )
        if served:
            self.store.put_bytes(manifest.encode())
        return _revealed(miner, manifest), manifest

    def given_up(self, event: Revealed, asked_by: int = NOW) -> Missing | None:
        self.candidates.patience = replace(self.candidates.patience, asked_by=asked_by)
        return self.candidates.given_up(event)

    def until(self, event: Revealed, ranked: list[Revealed]) -> None:
        """Ask as an oracle does until the weights of ``event`` are here."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while not isinstance(self.candidates.found(event), Path):
            assert time.monotonic() < ends
            self.candidates.fetch(ranked)
            time.sleep(0.005)


def _revealed(miner: int, manifest: Manifest) -> Revealed:
    fields = dict.fromkeys(Revealed.__struct_fields__, 0)
    known = {"round": 1, "miner": _address(miner), "manifest_digest": manifest.digest()}
    return Revealed(**{**fields, **known})


def _address(number: int) -> Address:
    return Address(f"0x{number:040x}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        made = World(tmp_path, journal)
        yield made
        made.store.served.set()
        made.errands.close()


def test_fetch__two_served_byte_by_byte__the_one_below_is_fetched_and_they_are_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.roles.candidates._SLOW_SECONDS", 0.3)
    slow = [world.reveal(miner) for miner in (1, 2)]
    world.store.slow = {hashing.raw_cid(manifest.digest()) for _, manifest in slow}
    honest, _ = world.reveal(3)
    ranked = [*(event for event, _ in slow), honest]
    world.candidates.fetch(ranked)
    assert world.given_up(ranked[0]) is None
    world.until(honest, ranked)
    assert world.given_up(ranked[0], asked_by=NOW - 1) is None, "it had not been asked for yet"
    missing = world.given_up(ranked[0])
    assert missing is not None
    assert "still arriving" in str(missing)
    assert world.given_up(honest) is None
    world.store.served.set()
    world.until(ranked[0], ranked)
    assert world.given_up(ranked[0]) is None


def test_fetch__more_files_served_block_by_block_than_can_be_fetched__one_below_is_fetched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.roles.candidates._SLOW_SECONDS", 0.05)
    slow = [world.reveal(miner)[0] for miner in range(1, FETCHES + 9)]
    honest, _ = world.reveal(99)
    examine = Candidates._examine

    def endless(self: Candidates, event: Revealed, store: Store) -> Judged | Path:
        """A file of more blocks than a round has seconds, but for the honest one's."""
        while event != honest:
            with contextlib.suppress(ContentNotFound):
                store.get_block(hashing.raw_cid(bytes(32)))
            time.sleep(0.01)
        return examine(self, event, store)

    monkeypatch.setattr(Candidates, "_examine", endless)
    setup = world.candidates.setup
    world.candidates.setup = replace(setup, store=Mirrors([("own", world.store)]))
    world.until(honest, [*slow, honest])
    broken_off = [event for event in slow if event in world.candidates.missing]
    assert broken_off[0] == slow[0], "the one that began first"
    assert len(broken_off) < len(slow)
    assert world.given_up(slow[0], asked_by=NOW - 1) is None, "it had not had its time yet"
    assert "broken off for others" in str(world.given_up(slow[0]))
    world.candidates.end()


def test_end__fetch_under_way__keeps_nothing_more(world: World) -> None:
    event, manifest = world.reveal(1)
    world.store.slow = {hashing.raw_cid(manifest.digest())}
    world.candidates.fetch([event])
    world.candidates.end()
    world.store.served.set()
    ends = time.monotonic() + PATIENCE_SECONDS
    while world.errands.under_way(f"fetch what {event.miner} revealed in round 1"):
        assert time.monotonic() < ends
        time.sleep(0.005)
    assert not isinstance(world.candidates.found(event), Path)
    assert not world.store.pins()


def test_check__disk_without_room_for_the_checkpoints__nothing_is_fetched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_spec(provenance=Provenance(policy="manifest"))
    world.candidates.spec = spec
    checkpoint = Checkpoint(
        step=1,
        milliseconds=1,
        cid=world.store.put_bytes(b"a checkpoint"),
        bytes=1 << 50,
        previous=None,
        train_loss_ppm=0,
        validation_dice_ppm=0,
    )
    _, manifest = world.reveal(1)
    manifest = manifest.model_copy(update={"checkpoints": (checkpoint,)})
    world.store.put_bytes(manifest.encode())
    event = _revealed(1, manifest)
    assert world.candidates.chain_fault(event) is None
    ends = time.monotonic() + PATIENCE_SECONDS
    while world.errands.under_way(f"check the checkpoints that {event.miner} revealed in round 1"):
        assert time.monotonic() < ends
        time.sleep(0.005)
    assert "free on the disk" in world.said[-1]
    assert event not in world.candidates.missing
    assert world.given_up(event) is None


def test_fetch__many_withheld_above__each_is_looked_up_once_before_the_one_below(
    world: World,
) -> None:
    withheld = [world.reveal(miner, served=False)[0] for miner in range(1, 21)]
    honest, manifest = world.reveal(30)
    world.until(honest, [*withheld, honest])
    reached = world.store.looked_up.index(hashing.raw_cid(manifest.digest()))
    assert reached <= len(withheld)
    assert all(event in world.candidates.missing for event in withheld)


def test_fetch__no_room_on_this_disk__is_not_held_against_the_miner(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.roles.candidates._SLOW_SECONDS", 0.0)
    event, manifest = world.reveal(1)
    world.store.unfit = {manifest.model.cid}
    world.candidates.fetch([event])
    ends = time.monotonic() + PATIENCE_SECONDS
    name = f"fetch what {event.miner} revealed in round 1"
    while world.errands.under_way(name):
        assert time.monotonic() < ends
        time.sleep(0.005)
    assert event not in world.candidates.missing
    assert world.given_up(event) is None


def test_fetch__missing_once_while_two_others_wait_to_be_scored__is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.roles.base.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("pouw.roles.candidates.RETRY_SECONDS", 0.05)
    honest, manifest = world.reveal(1, served=False)
    ranked = [honest, *(world.reveal(miner)[0] for miner in (2, 3))]
    world.until(ranked[1], ranked)
    world.until(ranked[2], ranked)
    assert honest in world.candidates.missing
    world.store.put_bytes(manifest.encode())
    world.until(honest, ranked)
    assert world.given_up(honest) is None


def test_given_up__missing__only_where_it_was_asked_for_again_near_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.roles.base.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("pouw.roles.candidates.RETRY_SECONDS", 1_000.0)
    event, _ = world.reveal(1, served=False)
    world.candidates.fetch([event])
    world.errands.finish()
    assert world.given_up(event) is None, "once may be chance"
    world.candidates.fetch([event])
    world.errands.finish()
    assert len(world.store.looked_up) == 1, "its pause is not over"

    world.candidates.patience = replace(world.candidates.patience, now=NOW + 90, last_look=NOW + 90)
    assert world.given_up(event) is None, "it may be there by now"
    world.candidates.fetch([event])
    world.errands.finish()
    missing = world.given_up(event)
    assert missing is not None
    assert missing.attempts == 2
    world.candidates.fetch([event])
    world.errands.finish()
    assert len(world.store.looked_up) == 2


def test_given_up__missing_once_and_then_sent_byte_by_byte__is_still_arriving(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.roles.base.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("pouw.roles.candidates.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("pouw.roles.candidates._SLOW_SECONDS", 0.0)
    event, manifest = world.reveal(1, served=False)
    world.candidates.fetch([event])
    world.errands.finish()
    world.store.slow = {hashing.raw_cid(manifest.digest())}
    world.candidates.fetch([event])
    ends = time.monotonic() + PATIENCE_SECONDS
    while len(world.store.looked_up) < 2:
        assert time.monotonic() < ends
        time.sleep(0.005)
    assert world.given_up(event, asked_by=NOW - 1) is None
    assert world.given_up(event) is not None
