"""A miner whose selected task is dropped, or is another one after a reorganisation."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from one_round import ETHER, LATER, PARAMETERS, PUBLISHER, Stage
from tiny_task import tiny_spec

from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.documents import Archive
from pouw.hashing import key_hash_of, raw_cid, sha256
from pouw.journal import Journal
from pouw.ml.requests import ENGINE_FILE
from pouw.roles.base import Notice, Setup
from pouw.roles.miner import Miner, MinerOptions
from pouw.storage.local import LocalStore

PATIENCE_SECONDS = 240.0
TRIAL_ASKED = Path(ENGINE_FILE).with_suffix(".request.json").name


class Withheld(LocalStore):
    """A store that never comes to the end of some files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files: set[str] = set()
        self.given_up = threading.Event()

    def get_file(self, cid: str, destination: Path, size: int) -> None:
        if cid in self.files:
            self.given_up.wait(PATIENCE_SECONDS)
        super().get_file(cid, destination, size)


class World:
    """An arena whose first task is selected, and a miner."""

    def __init__(self, endpoint: Endpoint, folder: Path, journal: Journal) -> None:
        self.endpoint, self.home = endpoint, folder / "home"
        self.store = Withheld(folder / "store")
        self.stage = Stage(endpoint, self.sealed(b"first"))
        self.notices: list[Notice] = []
        arena = self.stage.clients[LATER]
        self.setup = Setup(arena, self.store, self.home, journal, 1, 0, self.notices.append)
        self.miner = self.started()

    def started(self, *, inline: bool = True) -> Miner:
        return Miner(self.setup, MinerOptions(device="cpu"), inline=inline)

    def sealed(self, title: bytes) -> bytes:
        """The digest of a spec whose archives are to be had."""
        archive = Archive(cid=self.store.put_bytes(title), bytes=len(title), cases=1)
        spec = tiny_spec(title=title.decode(), train=archive, test=archive)
        self.store.put_bytes(spec.encode())
        return spec.digest()

    def publish(self, title: bytes, reward: int) -> None:
        publisher = self.stage.clients[PUBLISHER]
        publisher.publish(self.sealed(title), key_hash_of(title.ljust(32)), 1, reward)

    def drop(self) -> None:
        """Let the time pass in which the selected task's data key could be released."""
        self.stage.wait(PARAMETERS.phase2 + PARAMETERS.key_window)
        self.stage.clients[PUBLISHER].sync()

    def task(self, number: int) -> Path:
        return self.home / "tasks" / str(number)

    def run_until(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < until, [notice.text for notice in self.notices]
            self.miner.run_once()
            time.sleep(0.05)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with (
        Devnet(tmp_path / "chain", port=0, block_seconds=0) as devnet,
        Journal(tmp_path / "journal.sqlite") as journal,
    ):
        endpoint = Endpoint.connect(devnet.url)
        made = World(endpoint, tmp_path, journal)
        yield made
        made.store.given_up.set()
        made.miner.close()
        endpoint.close()


def trainings() -> list[int]:
    """The training processes that this process started and that run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == os.getpid() and b"pouw.ml.training" in command:
            found.append(int(folder.name))
    return found


def test_miner__selected_task_is_dropped__prepares_the_next_one_as_usual(world: World) -> None:
    world.publish(b"second", ETHER // 4)
    world.run_until((world.task(1) / TRIAL_ASKED).exists)
    (first,) = trainings()
    world.drop()

    world.run_until((world.task(2) / ENGINE_FILE).exists)

    assert first not in trainings()
    assert len(trainings()) == 1
    assert list(world.task(2).glob("*.sealed"))
    assert not world.task(1).exists()


def test_miner__selected_task_is_dropped_and_none_is_left__ends_its_process(world: World) -> None:
    world.run_until((world.task(1) / TRIAL_ASKED).exists)
    world.drop()
    begun = time.monotonic()
    assert world.miner.run_once().doing == "wait"
    assert time.monotonic() - begun < 3, "a process that waits for its request ends at once"
    assert not trainings()
    assert not world.task(1).exists()


def test_miner__restarted_while_its_task_is_dropped__lets_go_of_it_and_prepares_the_next_one(
    world: World,
) -> None:
    world.publish(b"second", ETHER // 4)
    world.publish(b"third", ETHER // 8)
    world.run_until((world.task(1) / TRIAL_ASKED).exists)
    world.miner.close()
    stray = world.home / "tasks" / ".DS_Store"
    stray.touch()
    world.stage.clients[PUBLISHER].top_up(3, ETHER // 4)
    world.drop()
    world.miner = world.started()
    world.run_until((world.task(3) / TRIAL_ASKED).exists)
    assert not world.task(1).exists()
    assert not world.task(2).exists()
    assert stray.exists()


def test_miner__dropped_task_is_served_by_the_byte__the_next_one_is_fetched_meanwhile(
    world: World,
) -> None:
    world.publish(b"second", ETHER // 4)
    world.store.files = {raw_cid(sha256(b"first"))}
    world.miner.close()
    world.miner = world.started(inline=False)
    world.run_until((world.task(1) / TRIAL_ASKED).exists)
    world.drop()
    world.run_until(lambda: bool(list(world.task(2).glob("*.sealed"))))
    assert not list(world.task(1).glob("*.sealed"))
    world.store.given_up.set()
    world.run_until(lambda: not world.task(1).exists())
