"""When a miner fetches and opens the two archives of its task: anvil, archives really sealed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from one_round import LATER, PARAMETERS, PUBLISHER, ROUND, TEST_KEY, Stage
from test_dropped_task import Withheld
from tiny_task import tiny_spec, write_tiny_set

from pouw.archive import pack
from pouw.chain.rpc import Endpoint
from pouw.documents import Archive
from pouw.hashing import data_key_of
from pouw.journal import Journal
from pouw.ml.planning import insurance_seconds
from pouw.ml.requests import Finished, TrainingRequest
from pouw.ml.runfolder import RunFolder
from pouw.roles.base import Notice, Setup
from pouw.roles.miner import Miner, MinerOptions
from pouw.roles.rounds import folder_of
from pouw.sealing import Sealing

PATIENCE_SECONDS = 60.0


class World:
    """A selected task, and a miner whose training processes end at once."""

    def __init__(self, endpoint: Endpoint, folder: Path, journal: Journal) -> None:
        self.home, self.notices = folder / "home", list[Notice]()
        self.store = Withheld(folder / "store")
        train = self.sealed(folder / "train", data_key_of(TEST_KEY), train=4, test=0)
        self.test = self.sealed(folder / "test", TEST_KEY, train=0, test=2)
        spec = tiny_spec(train=train, test=self.test)
        self.store.put_bytes(spec.encode())
        self.stage = Stage(endpoint, spec.digest())
        self.setup = Setup(
            self.stage.clients[LATER], self.store, self.home, journal, 1, 0, self.notices.append
        )
        self.miner: Miner | None = None

    def sealed(self, folder: Path, key: bytes, *, train: int, test: int) -> Archive:
        tar = folder.with_suffix(".tar")
        pack(write_tiny_set(folder, train, test), tar)
        with Sealing(tar, key, lambda _: None) as sealing:
            stored = self.store.put_leaves(sealing)
        return Archive(cid=stored.cid, bytes=stored.bytes, cases=train + test)

    def begin(self) -> None:
        """Let Phase 1 begin."""
        self.stage.wait(PARAMETERS.phase2)
        self.stage.clients[PUBLISHER].release_data_key(data_key_of(TEST_KEY))

    @property
    def asked_to_train(self) -> Path:
        return folder_of(self.home, ROUND) / "request.json"

    @property
    def test_archive(self) -> Path:
        return self.home / "tasks" / "1" / f"{self.test.cid}.sealed"

    def run_until(self, condition: Callable[[], bool], *, inline: bool = False) -> None:
        """Let a miner go on, which is started now where there is none."""
        if self.miner is None:
            options = MinerOptions(device="cpu", trial=False)
            self.miner = Miner(self.setup, options, inline=inline)
        until = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < until, [notice.text for notice in self.notices]
            self.miner.run_once()
            time.sleep(0.05)


@pytest.fixture
def world(anvil_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    endpoint = Endpoint.connect(anvil_url)
    with Journal(tmp_path / "journal.sqlite") as journal:
        made = World(endpoint, tmp_path, journal)
        yield made
        made.store.given_up.set()
        if made.miner:
            made.miner.close()
    endpoint.close()


@pytest.mark.parametrize("started_in_phase_1", [False, True])
def test_miner__test_archive_is_slow_to_come__trains_as_soon_as_the_other_is_there(
    world: World, started_in_phase_1: bool
) -> None:
    world.store.files = {world.test.cid}
    if not started_in_phase_1:
        world.run_until(lambda: any((world.home / "tasks" / "1").glob("*.sealed")))
    world.begin()
    world.run_until(world.asked_to_train.exists)
    assert not world.test_archive.exists()


def test_miner__started_in_phase_1__fetches_the_test_archive_before_it_is_opened(
    world: World,
) -> None:
    world.begin()
    world.run_until(lambda: world.test_archive.exists() and world.asked_to_train.exists())


def test_miner__started_in_phase_1_after_its_training__fetches_the_test_archive(
    world: World,
) -> None:
    world.begin()
    RunFolder(folder_of(world.home, ROUND)).finish(
        Finished(step=1, milliseconds=1, reason="max-steps")
    )
    world.run_until(world.test_archive.exists)


def test_miner__started_in_phase_1__insures_its_training_by_the_time_between_blocks(
    world: World,
) -> None:
    world.begin()
    world.stage.endpoint.request("anvil_mine", hex(30), hex(5))
    world.run_until(world.asked_to_train.exists, inline=True)
    request = TrainingRequest.parse(world.asked_to_train.read_text())
    assert request.insurance_seconds == insurance_seconds(5.0)
