"""What a miner measures its own model at where its machine is in trouble, on anvil."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from one_round import LATER, PARAMETERS, PUBLISHER, ROUND, TEST_KEY, Stage
from safetensors.torch import load_file, save_file
from tiny_task import tiny_request, tiny_spec, write_tiny_set

from pouw.archive import pack
from pouw.chain.rpc import Endpoint
from pouw.documents import Archive, TaskSpec
from pouw.hashing import data_key_of
from pouw.journal import Journal
from pouw.ml.training import Training
from pouw.roles.base import Notice, Setup
from pouw.roles.miner import Miner, MinerOptions
from pouw.roles.processes import ScoringProcess
from pouw.sealing import Sealing
from pouw.storage.local import LocalStore
from pouw.types import EntryState

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Trained:
    """A task whose archives are in ``store``, and the folder of a training on it."""

    store: LocalStore
    spec: TaskSpec
    out: Path


def sealed(folder: Path, store: LocalStore, key: bytes, train: int, test: int) -> Archive:
    tar = folder.with_suffix(".tar")
    pack(write_tiny_set(folder, train, test), tar)
    with Sealing(tar, key) as sealing:
        kept = store.put_leaves(sealing)
    return Archive(cid=kept.cid, bytes=kept.bytes, cases=train + test)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("training")
    store = LocalStore(folder / "store")
    spec = tiny_spec(
        train=sealed(folder / "train", store, data_key_of(TEST_KEY), 4, 0),
        test=sealed(folder / "test", store, TEST_KEY, 0, 2),
    )
    store.put_bytes(spec.encode())
    request = tiny_request(folder / "train", folder / "out", spec=spec, max_steps=60)
    Training(request, lambda: False).run()
    (request.out / "request.json").write_text(request.line())
    return Trained(store, spec, request.out)


class World:
    """A miner that trained in the round's Phase 1 and has to measure its model now."""

    def __init__(self, endpoint: Endpoint, home: Path, journal: Journal, trained: Trained) -> None:
        self.home, self.journal, self.trained = home, journal, trained
        self.notices: list[Notice] = []
        self.stage = Stage(endpoint, trained.spec.digest())
        self.stage.wait(PARAMETERS.phase2)
        self.stage.clients[PUBLISHER].release_data_key(data_key_of(TEST_KEY))
        self.out = home / "rounds" / str(ROUND)
        shutil.copytree(trained.out, self.out)
        self._miner: Miner | None = None

    def miner(self, home: Path | None = None) -> Miner:
        """The miner, started (again), in a ``home`` that is named in another way."""
        self.close()
        arena, store = self.stage.clients[LATER], self.trained.store
        setup = Setup(arena, store, home or self.home, self.journal, 1, 0, self.notices.append)
        self._miner = Miner(setup, MinerOptions(device="cpu", trial=False), inline=True)
        return self._miner

    def commit(self, home: Path | None = None) -> Miner:
        """Commit to what was trained; then the test set is opened."""
        miner = self.miner(home)
        assert miner.run_once().doing == "commit"
        self.stage.wait(PARAMETERS.phase1)
        self.stage.clients[PUBLISHER].open_test(TEST_KEY)
        return miner

    @property
    def score(self) -> int | None:
        found: int | None = self.journal.get("scores", str(ROUND))
        return found

    @property
    def state(self) -> EntryState:
        arena = self.stage.clients[LATER]
        return arena.entry(ROUND, arena.sender.address).state

    def warned(self, text: str) -> bool:
        return any(text in one.text for one in self.notices if one.level == "warning")

    def close(self) -> None:
        if self._miner is not None:
            self._miner.close()


@pytest.fixture
def world(anvil_url: str, tmp_path: Path, trained: Trained) -> Iterator[World]:
    endpoint = Endpoint.connect(anvil_url)
    with Journal(tmp_path / "journal.sqlite") as journal:
        world = World(endpoint, tmp_path / "home", journal, trained)
        yield world
        world.close()
    endpoint.close()


def run_until(miner: Miner, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        miner.run_once()
        time.sleep(0.1)


def test_measure__model_out_of_reach_for_a_moment__nothing_is_recorded_and_it_is_revealed(
    world: World, tmp_path: Path
) -> None:
    miner = world.commit()
    content, away = world.out / "content", tmp_path / "away"
    content.rename(away)
    for model in world.out.glob("model-*"):
        model.unlink()
    run_until(miner, lambda: world.warned("model"))
    assert world.score is None
    shutil.rmtree(content, ignore_errors=True)
    away.rename(content)
    run_until(miner, lambda: world.state is EntryState.REVEALED)
    assert world.score is not None
    assert world.score > 600_000


def test_measure__scoring_dies_again_and_again__is_asked_for_until_it_answers(
    world: World,
) -> None:
    miner, killed = world.commit(), list[int]()
    (scoring,) = miner._scoring.seats
    assert isinstance(scoring, ScoringProcess)

    def measured() -> bool:
        if scoring.busy and scoring.pid not in (None, *killed) and len(killed) < 2:
            killed.append(scoring.pid or 0)
            os.kill(killed[-1], 9)
        return world.score is not None

    run_until(miner, measured)
    assert len(killed) == 2
    assert world.warned("SIGKILL")
    assert world.score is not None
    assert world.score > 600_000


def test_measure__every_case_fails__is_recorded_only_when_time_runs_out(world: World) -> None:
    (model,) = world.out.glob("model-*")
    save_file({name: torch.full_like(one, 1e30) for name, one in load_file(model).items()}, model)
    miner = world.commit()
    run_until(miner, lambda: world.warned("test0"))
    assert world.score is None
    world.stage.wait(PARAMETERS.key_window + 2 * PARAMETERS.reveal_window // 3)
    miner.run_once()
    assert world.score == 0
    assert world.state is EntryState.COMMITTED


def test_measure__working_directory_changed__finds_the_model_where_the_home_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.home.parent)
    world.commit(Path(world.home.name))
    monkeypatch.chdir("/")
    run_until(world.miner(), lambda: world.score is not None)
    assert world.score is not None
    assert world.score > 600_000


def test_measure__training_went_on_in_the_same_file__measures_what_was_committed_to(
    world: World,
) -> None:
    miner = world.commit()
    (model,) = world.out.glob("model-*")
    save_file({name: torch.zeros_like(one) for name, one in load_file(model).items()}, model)
    run_until(miner, lambda: world.score is not None)
    assert world.score is not None
    assert world.score > 600_000
