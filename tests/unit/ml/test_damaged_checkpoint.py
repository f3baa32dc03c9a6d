"""Training whose newest checkpoint is damaged: taken back, with what was noted of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_training import metadata, snapshots, train
from tiny_task import tiny_request, tiny_spec, write_tiny_set

from pouw.documents import Provenance
from pouw.hashing import sha256
from pouw.ml.training import Training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_set(tmp_path_factory.mktemp("boxes"))


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _rotten(path: Path) -> None:
    """One weight is another number, and a number still."""
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(0.5).tobytes()
    path.write_bytes(data)


def _not_a_number(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    lines = path.with_name("snapshots.jsonl")
    *before, last = snapshots(path.parent)
    as_written = last.model_copy(update={"checkpoint_sha256": sha256(data).hex()})
    lines.write_text("".join(one.line() + "\n" for one in (*before, as_written)))


@pytest.mark.parametrize("damage", [_truncated, _rotten, _not_a_number, Path.unlink])
@pytest.mark.parametrize("checkpoints", [3, 1])
def test_training__newest_checkpoint_damaged__goes_on_from_the_one_before(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    checkpoints: int,
) -> None:
    spec = tiny_spec(provenance=Provenance(policy="replay", segment_steps=5, segments=1))
    whole = tiny_request(data, tmp_path / "whole", spec=spec, max_steps=15)
    train(whole)
    request = whole.model_copy(update={"out": tmp_path / "damaged"})
    left = iter([False] * {3: 15, 1: 4}[checkpoints])
    assert Training(request, lambda: next(left, True)).run().reason == "terminated"
    *sound, last = snapshots(request.out)
    assert len(sound) == checkpoints - 1
    damage(request.out / last.checkpoint)

    assert train(request).reason == "max-steps"

    assert f"warning: {last.checkpoint} is damaged" in capsys.readouterr().err
    chain = snapshots(request.out)
    assert chain[: len(sound)] == sound
    before = ""
    for one, same in zip(chain, snapshots(whole.out), strict=True):
        ours, theirs = (folder / one.checkpoint for folder in (request.out, whole.out))
        assert (one.step, one.previous) == (same.step, same.previous)
        assert metadata(ours)["previous_sha256"] == before
        for name, tensor in load_file(theirs).items():  # the schedule too
            assert torch.equal(tensor, load_file(ours)[name])
        before = sha256(ours.read_bytes()).hex()
