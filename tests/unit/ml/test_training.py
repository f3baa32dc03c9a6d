from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_task import SEED, tiny_request, tiny_spec, write_tiny_set

from pouw.documents import Provenance
from pouw.errors import ConfigError, ModelError, ProcessError
from pouw.hashing import sha256
from pouw.ml.augment import shaded
from pouw.ml.learner import learning_rate
from pouw.ml.networks import build, parameter_count
from pouw.ml.requests import (
    Engine,
    Finished,
    Progress,
    Snapshot,
    TrainingRequest,
    TrainingSettings,
    TuningRequest,
)
from pouw.ml.runfolder import RunFolder
from pouw.ml.safefile import MAX_HEADER_BYTES
from pouw.ml.sampling import Batch, PatchSampler, items_of
from pouw.ml.training import Training, main, now_ms


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_set(tmp_path_factory.mktemp("boxes"))


def train(request: TrainingRequest) -> Finished:
    return Training(request, lambda: False).run()


def snapshots(out: Path) -> list[Snapshot]:
    return [Snapshot.parse(line) for line in (out / "snapshots.jsonl").read_bytes().splitlines()]


def metadata(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length < MAX_HEADER_BYTES
    return json.loads(data[8 : 8 + length])["__metadata__"]


def start(request: TrainingRequest, folder: Path) -> subprocess.Popen[bytes]:
    path = folder / "request.json"
    path.write_text(request.line(), encoding="utf-8")
    return subprocess.Popen([sys.executable, "-m", "pouw.ml.training", str(path)])


def wait_for(condition: object, seconds: float = 180) -> None:
    assert callable(condition)
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def sampler(seed: bytes = b"s" * 32, **settings: object) -> PatchSampler:
    random = np.random.Generator(np.random.Philox(4))
    image = random.normal(0, 1, (1, 20, 12, 6)).astype(np.float32)
    label = (image[0] > 1).astype(np.uint8)
    return PatchSampler(
        items_of(image, label, (16, 16)),
        (16, 16),
        seed,
        TrainingSettings(**{"batch_size": 4, **settings}),
    )


def assert_same(one: Batch, other: Batch) -> None:
    assert (one.step, one.seed) == (other.step, other.seed)
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.shades, other.shades)


def test_batch__same_seed_and_step__same_patches_in_any_order() -> None:
    one, two = sampler(), sampler()
    first = [one.batch(step) for step in range(4)]
    for step in (3, 1, 0, 2):
        batch = two.batch(step)
        assert_same(batch, first[step])
    assert batch.images.shape == (4, 1, 16, 16)
    assert batch.labels.shape == (4, 1, 16, 16)
    assert batch.images.dtype == np.float32
    for other in (first[1], sampler(b"t" * 32).batch(0), one.batch(0, rank=1)):
        assert not np.array_equal(other.images, first[0].images)
        assert not np.array_equal(other.shades, first[0].shades)
        assert other.seed != first[0].seed
    assert_same(one.batch(0, rank=1), two.batch(0, rank=1))


def test_shaded__same_batch__same_images_within_the_strength() -> None:
    batch = sampler().batch(3)
    images = torch.from_numpy(batch.images)
    one, two = (shaded(images, batch, 0.2) for _ in range(2))
    assert torch.equal(one, two)
    assert 0.01 < float((one - images).abs().mean()) < 0.5
    assert shaded(images, batch, 0.0) is images


def test_batch__image_and_label__cut_and_mirrored_together() -> None:
    batches = sampler(foreground_ppm=1_000_000)
    for step in range(5):
        batch = batches.batch(step)
        np.testing.assert_array_equal(batch.labels, batch.images > 1)
        assert batch.labels.any(axis=(1, 2, 3)).all()


def test_batch_size__not_given__follows_the_size_of_a_patch() -> None:
    flat, deep = np.zeros((1, 96, 96, 2), np.float32), np.zeros((1, 64, 64, 16), np.float32)
    for image, patch, expected in ((flat, (96, 96), 4), (deep, (64, 64, 16), 1)):
        items = items_of(image, image[0].astype(np.uint8), patch)
        assert PatchSampler(items, patch, b"s", TrainingSettings()).batch_size == expected


def test_learning_rate__over_the_budget__rises_then_falls_to_zero() -> None:
    settings = TrainingSettings(learning_rate_ppm=2_000, warmup_ppm=100_000)
    rates = [learning_rate(fraction, settings) for fraction in (0, 50_000, 100_000, 550_000)]
    assert rates == pytest.approx([0.0001, 0.001, 0.002, 0.001])
    assert learning_rate(1_000_000, settings) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_training__tiny_set__learns_it(data: Path, tmp_path: Path, spatial_dims: int) -> None:
    request = tiny_request(data, tmp_path, spec=tiny_spec(spatial_dims), max_steps=60)
    assert train(request).reason == "max-steps"
    (last,) = snapshots(tmp_path)
    assert last.step == 60
    assert last.validation_dice_ppm > 600_000
    assert last.validation_cases == 1
    assert (tmp_path / last.model).stat().st_size < (tmp_path / last.checkpoint).stat().st_size
    progress = (tmp_path / "progress.jsonl").read_bytes().splitlines()
    assert Progress.parse(progress[0]).step == 1


def test_training__network_in_float32_passes_the_caps__its_model_is_halved(
    data: Path, tmp_path: Path
) -> None:
    network = build(tiny_spec().network, 1, 3, parameters_cap=100_000)
    caps = tiny_spec().caps.model_copy(update={"model_bytes": 3 * parameter_count(network) + 2048})
    # Where the clock does not ask for it a checkpoint is not validated, and float32 otherwise.
    policy = Provenance(policy="replay", segment_steps=1, segments=1)
    train(tiny_request(data, tmp_path, spec=tiny_spec(caps=caps, provenance=policy), max_steps=2))
    for one in snapshots(tmp_path):
        assert (tmp_path / one.model).stat().st_size <= caps.model_bytes
        assert one.dtype == "bfloat16"


def test_training__same_request_twice__same_bytes(data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tiny_request(data, tmp_path / name))
    one, two = ((tmp_path / name / "model-00000012.safetensors") for name in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()
    train(tiny_request(data, tmp_path / "c", seed="0x" + "5b" * 32))
    assert (tmp_path / "c" / one.name).read_bytes() != one.read_bytes()


def test_training__finished__asked_again__does_nothing(data: Path, tmp_path: Path) -> None:
    request = tiny_request(data, tmp_path, max_steps=3)
    first = train(request)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert train(request) == first
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_training__folder_of_another_request__refused(data: Path, tmp_path: Path) -> None:
    Training(tiny_request(data, tmp_path), lambda: True).run()
    with pytest.raises(ConfigError, match="another request"):
        train(tiny_request(data, tmp_path, seed="0x" + "00" * 32))


def test_training__deadline__last_snapshot_is_complete_before_it(
    data: Path, tmp_path: Path
) -> None:
    stop_at_ms = int(time.time() * 1000) + 6_000
    request = tiny_request(
        data, tmp_path, max_steps=None, stop_at_ms=stop_at_ms, first_snapshot_seconds=1
    )
    finished = train(request)
    ended_ms = (tmp_path / "snapshots.jsonl").stat().st_mtime_ns / 1e6
    assert finished.reason == "deadline"
    assert ended_ms < stop_at_ms
    first, *_, last = snapshots(tmp_path)
    assert first.milliseconds >= 1_000
    assert last.step == finished.step > first.step
    gaps = [
        Progress.parse(line).milliseconds
        for line in (tmp_path / "progress.jsonl").read_bytes().splitlines()
    ]
    assert all(later - sooner >= 450 for sooner, later in pairwise(gaps))


def test_training__deadline_too_near__ends_without_a_snapshot(data: Path, tmp_path: Path) -> None:
    request = tiny_request(data, tmp_path, stop_at_ms=int(time.time() * 1000) + 500)
    finished = train(request)
    assert (finished.step, finished.reason) == (0, "deadline")
    assert not (tmp_path / "snapshots.jsonl").exists()


def test_training__killed_and_started_again__ends_as_if_it_had_not_been(
    data: Path, tmp_path: Path
) -> None:
    steps = 400
    whole = tiny_request(data, tmp_path / "whole", max_steps=steps)
    train(whole)
    request = tiny_request(
        data, tmp_path / "killed", max_steps=steps, first_snapshot_seconds=1, snapshot_seconds=1
    )
    lines = tmp_path / "killed" / "snapshots.jsonl"
    child = start(request, tmp_path)
    wait_for(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 1)
    child.kill()
    child.wait()
    killed_at = snapshots(tmp_path / "killed")[-1]
    assert killed_at.step < steps
    # What a crash in the middle of a snapshot leaves behind.
    (tmp_path / "killed" / "checkpoint-99999999.safetensors").write_bytes(b"half")
    with lines.open("ab") as file:
        file.write(b'{"step":99999999,')

    assert train(request).step == steps
    ours, theirs = (
        tmp_path / name / f"model-{steps:08d}.safetensors" for name in ("killed", "whole")
    )
    assert ours.read_bytes() == theirs.read_bytes()
    assert not (tmp_path / "killed" / "checkpoint-99999999.safetensors").exists()

    chain = snapshots(tmp_path / "killed")
    assert [one.previous for one in chain] == [None, *(one.checkpoint for one in chain[:-1])]
    for before, after in pairwise(chain):
        said = metadata(tmp_path / "killed" / after.checkpoint)
        assert said["previous"] == before.checkpoint
        previous = (tmp_path / "killed" / before.checkpoint).read_bytes()
        assert said["previous_sha256"] == sha256(previous).hex()
        assert int(said["steps_since_previous"]) == after.step - before.step


def test_training__sigterm__snapshots_and_ends_then_goes_on(data: Path, tmp_path: Path) -> None:
    request = tiny_request(data, tmp_path / "out", max_steps=100_000)
    child = start(request, tmp_path)
    progress = tmp_path / "out" / "progress.jsonl"
    wait_for(lambda: progress.exists() and progress.read_bytes().count(b"\n") >= 2)
    child.send_signal(signal.SIGTERM)
    assert child.wait(90) == 0
    ended = Finished.parse((tmp_path / "out" / "finished.json").read_bytes())
    assert ended.reason == "terminated"
    assert snapshots(tmp_path / "out")[-1].step == ended.step > 0

    again = request.model_copy(update={"stop_at_ms": int(time.time() * 1000) + 8_000})
    assert train(again).step > ended.step
    assert snapshots(tmp_path / "out")[1].previous == snapshots(tmp_path / "out")[0].checkpoint


def test_training__snapshot_of_an_older_release__goes_on_from_it(
    data: Path, tmp_path: Path
) -> None:
    request = tiny_request(data, tmp_path)
    left = iter([False] * 5)
    assert Training(request, lambda: next(left, True)).run().reason == "terminated"
    lines = tmp_path / "snapshots.jsonl"
    older = json.loads(lines.read_text())
    del older["validation_cases"]
    lines.write_text(json.dumps(older, separators=(",", ":")) + "\n")
    assert train(request).reason == "max-steps"
    first, last = snapshots(tmp_path)
    assert (first.validation_cases, last.previous) == (0, first.checkpoint)


def test_training__parent_gone__ends_with_a_snapshot(data: Path, tmp_path: Path) -> None:
    request = tiny_request(data, tmp_path / "out", max_steps=100_000)
    (tmp_path / "request.json").write_text(request.line(), encoding="utf-8")
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([{sys.executable!r}, '-m', 'pouw.ml.training', sys.argv[1]])\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "request.json")])
    wait_for((tmp_path / "out" / "progress.jsonl").exists)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_for((tmp_path / "out" / "finished.json").exists)
    assert snapshots(tmp_path / "out")


def test_main__bad_request__says_so_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "request.json").write_text('{"seed": 1}', encoding="utf-8")
    before = signal.getsignal(signal.SIGTERM)
    try:
        for name in ("request.json", "absent.json"):
            assert main([str(tmp_path / name)]) == 1
            assert capsys.readouterr().err.startswith("training failed: ")
        assert main([]) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_training__another_at_work__waits_then_gives_up(data: Path, tmp_path: Path) -> None:
    request = tiny_request(data, tmp_path, stop_at_ms=int(time.time() * 1000) + 300)
    with (
        RunFolder(tmp_path).locked(request.stop_at_ms, now_ms),
        pytest.raises(ProcessError, match="another training"),
    ):
        train(request)


def test_main__dash__imports_first_then_reads_the_path(data: Path, tmp_path: Path) -> None:
    request = tiny_request(data, tmp_path / "out", max_steps=2)
    (tmp_path / "request.json").write_text(request.line(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pouw.ml.training", "-"],
        input=f"train {tmp_path / 'request.json'}\n".encode(),
    )
    assert done.returncode == 0
    assert snapshots(tmp_path / "out")[-1].step == 2


def test_training__diverged__says_so(data: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(
        learning_rate_ppm=1_000_000,
        gradient_norm_ppm=2**53,
        warmup_ppm=0,
        weight_decay_ppm=1_000_000,
    )
    request = tiny_request(data, tmp_path, settings=settings, max_steps=1, seed=SEED)
    training = Training(request, lambda: False)
    training.run()
    batch = Batch(
        step=7,
        images=np.full((1, 1, 16, 16), np.inf, np.float32),
        labels=np.zeros((1, 1, 16, 16), np.uint8),
        shades=np.zeros((1, 5), np.float32),
        seed=1,
    )
    with pytest.raises(ModelError, match="diverged at step 7"):
        training._learner.step([batch], 0)


def test_main__dash_and_no_request_yet__sigterm_ends_it_at_once(tmp_path: Path) -> None:
    tuned = tmp_path / "engine.json"
    request = TuningRequest(spec=tiny_spec(), engine=Engine(device="cpu"), out=tuned, stop_at_ms=1)
    (tmp_path / "tune.json").write_text(request.line(), encoding="utf-8")
    child = subprocess.Popen([sys.executable, "-m", "pouw.ml.training", "-"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    with child.stdin:
        child.stdin.write(f"tune {tmp_path / 'tune.json'}\n".encode())
        child.stdin.flush()
        wait_for(tuned.exists)
        child.send_signal(signal.SIGTERM)
        try:
            assert child.wait(4) == -signal.SIGTERM
        finally:
            child.kill()
