"""A training never writes more checkpoints than the manifest of its task may list."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tiny_task import tiny_request, tiny_spec, write_tiny_set

from pouw.documents import Provenance, TaskSpec
from pouw.ml.checkpoint import CheckpointState, checkpoint_bytes
from pouw.ml.learner import Learner
from pouw.ml.networks import build
from pouw.ml.recipe import _network
from pouw.ml.requests import Engine, Finished, Snapshot, TrainingRequest, TrainingSettings
from pouw.ml.room import Room
from pouw.ml.runfolder import RunFolder
from pouw.ml.training import Training, now_ms

SEGMENT = Provenance(policy="replay", segment_steps=1, segments=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_set(tmp_path_factory.mktemp("boxes"))


def spec_with(checkpoints_bytes: int, provenance: Provenance = SEGMENT) -> TaskSpec:
    caps = tiny_spec().caps.model_copy(update={"checkpoints_bytes": checkpoints_bytes})
    return tiny_spec(provenance=provenance, caps=caps)


def each_bytes() -> int:
    """What a checkpoint of the tiny network has at most, its schedule aside."""
    spec = tiny_spec()
    network = build(spec.network, 1, 3, parameters_cap=spec.caps.parameters)
    return checkpoint_bytes(network)


def train(request: TrainingRequest) -> Finished:
    return Training(request, lambda: False).run()


def sizes(out: Path) -> list[int]:
    return [one.checkpoint_bytes for one in snapshots(out)]


def snapshots(out: Path) -> list[Snapshot]:
    return RunFolder(out).snapshots()


@pytest.mark.parametrize("name", ["unet", "dynunet", "segresnet", "fcn34"])
def test_checkpoint_bytes__any_network__is_a_close_bound(tmp_path: Path, name: str) -> None:
    network, patch = _network(name, 2, (32, 32), (1000, 1000))
    inference = tiny_spec().inference.model_copy(update={"patch": patch})
    spec = tiny_spec(network=network, inference=inference)
    spec = spec.model_copy(update={"caps": spec.caps.model_copy(update={"parameters": 1 << 30})})
    learner = Learner(spec, b"s" * 32, TrainingSettings(), Engine(device="cpu"))
    for parameter in learner.network.parameters():
        parameter.grad = parameter.detach().clone()
    learner._optimiser.step()
    state = CheckpointState(10**9, 10**12, (0,) * 7, "checkpoint-123456789.safetensors", "f" * 64)
    learner.save(tmp_path / "model", tmp_path / "checkpoint", state)
    found, bound = (tmp_path / "checkpoint").stat().st_size, checkpoint_bytes(learner.network)
    assert found - 4 * 7 <= bound <= 1.02 * found + 50_000


def test_room__counts_number_bytes_and_the_steps_of_the_next() -> None:
    room = Room(number=3, bytes=1000, each=300)
    assert room.holds(0) == 3
    assert room.holds(26) == 2  # 104 bytes of schedule
    room.add(300)
    assert room.holds(0) == 2
    room.add(500)
    assert room.holds(0) == 0
    assert Room(number=2, bytes=10**9, each=300).holds(0) == 2
    assert Room(number=2, bytes=10**18, each=300).holds((1 << 24) + 1) == 0


@pytest.mark.parametrize("checkpoints", [1, 2, 3, 7])
def test_training__room_for_few__they_are_spaced_and_the_last_is_the_end(
    data: Path, tmp_path: Path, checkpoints: int
) -> None:
    allowed = checkpoints * (each_bytes() + 4 * 60)
    request = tiny_request(data, tmp_path, spec=spec_with(allowed), max_steps=60)
    assert train(request).reason == "max-steps"
    steps = [one.step for one in snapshots(tmp_path)]
    assert sum(sizes(tmp_path)) <= allowed
    assert steps[-1] == 60
    # Room for two is kept: the last one, and one that insures it.
    assert len(steps) == max(1, checkpoints - 2)
    gaps = [later - sooner for sooner, later in zip([0, *steps], steps, strict=False)]
    assert max(gaps) <= 60 / max(1, checkpoints - 2) + 1


@pytest.mark.parametrize("taken_away", [False, True])
def test_training__stopped_again_and_again__counts_what_it_wrote_and_reaches_the_end(
    data: Path, tmp_path: Path, taken_away: bool
) -> None:
    """Whether a miner leaves the checkpoints before the last here or took them to its store."""
    allowed = 6 * (each_bytes() + 4 * 60)
    request = tiny_request(data, tmp_path, spec=spec_with(allowed), max_steps=60)
    for stop in range(1, 20):
        asked = 0

        def ended(stop: int = stop) -> bool:
            nonlocal asked
            asked += 1
            return asked > 3 + stop

        Training(request, ended).run()
        for one in snapshots(tmp_path)[:-1] if taken_away else ():
            (tmp_path / one.checkpoint).unlink(missing_ok=True)
    last = snapshots(tmp_path)[-1]
    assert last.checkpoint_bytes == (tmp_path / last.checkpoint).stat().st_size
    assert sum(sizes(tmp_path)) <= allowed
    finished = train(request)
    assert finished.reason == "max-steps"
    assert snapshots(tmp_path)[-1].step == 60
    assert sum(sizes(tmp_path)) <= allowed


def test_training__by_the_clock__numbers_are_bounded_and_spread(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.ml.room.MAX_CHECKPOINTS", 8)
    started = now_ms()
    request = tiny_request(
        data,
        tmp_path,
        spec=tiny_spec(provenance=SEGMENT),
        max_steps=None,
        stop_at_ms=int(time.time() * 1000) + 8_000,
        first_snapshot_seconds=1,
        snapshot_seconds=1,
    )
    assert train(request).reason == "deadline"
    found = snapshots(tmp_path)
    assert 3 <= len(found) <= 8
    # Not all at the beginning: one a second would have used up the number by then.
    assert found[-1].milliseconds > (request.stop_at_ms - started) * 0.6
    assert found[-2].milliseconds > (request.stop_at_ms - started) * 0.3


def test_training__schedule_fills_the_room__ends_with_a_checkpoint_that_fits(
    data: Path, tmp_path: Path
) -> None:
    allowed = each_bytes() + 4 * 25
    request = tiny_request(data, tmp_path, spec=spec_with(allowed), max_steps=60)
    finished = train(request)
    assert (finished.reason, finished.step) == ("full", 25)
    assert snapshots(tmp_path)[-1].step == 25
    assert sum(sizes(tmp_path)) <= allowed
    # Asked again, it has nothing to add.
    assert train(request) == finished


def test_training__no_provenance_asked_for__writes_as_many_as_it_likes(
    data: Path, tmp_path: Path
) -> None:
    spec = spec_with(1, Provenance(policy="none"))
    request = tiny_request(data, tmp_path, spec=spec, max_steps=30)
    assert train(request).reason == "max-steps"
    assert snapshots(tmp_path)[-1].step == 30
