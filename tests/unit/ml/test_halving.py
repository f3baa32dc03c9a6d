"""Models in half the bytes: only where the validation cases cannot tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_task import tiny_request, tiny_spec, write_tiny_set
from torch import nn

from pouw.ml.checkpoint import floating_state, load_model, save_model
from pouw.ml.halving import halves_well, rounded
from pouw.ml.networks import build
from pouw.ml.runfolder import RunFolder
from pouw.ml.training import Training
from pouw.ml.validation import ValidationCase, Window

SPEC = tiny_spec()


def window(times: list[float], enough: float = 1e9, until: float = 1e9) -> Window:
    """A clock that shows ``times`` one after the other, the last of them for ever."""
    return Window(enough, until, lambda: times.pop(0) if len(times) > 1 else times[0])


def threshold_network() -> nn.Module:
    """Label 1 where a pixel is above 1.001, which bfloat16 rounds to 1; label 2 never."""
    network = nn.Conv2d(1, 3, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([0.0, 1.0, 0.0]).reshape(3, 1, 1, 1))
        network.bias.copy_(torch.tensor([1.001, 0.0, -10.0]))
    return network


def case(doubtful: int) -> ValidationCase:
    """1,024 pixels: half of them bright and labelled, ``doubtful`` others just below 1.001."""
    image = np.zeros((1, 32, 32, 1), dtype=np.float32)
    image[0, :16] = 2.0
    label = (image[0] > 1).astype(np.uint8)
    image[0, 16:].reshape(-1)[:doubtful] = 1.0005
    return ValidationCase(image, label)


# Dice of label 1 is 2 * 512 / (1024 + doubtful), the mean over both labels half as far from 1.
@pytest.mark.parametrize(("doubtful", "expected"), [(0, True), (2, True), (3, False), (400, False)])
def test_halves_well__dice_within_a_thousandth__alone(doubtful: int, expected: bool) -> None:
    assert halves_well(threshold_network(), [case(doubtful)], SPEC, window([0])) is expected


def test_halves_well__loss_in_one_of_many_cases__is_the_mean() -> None:
    cases = [case(3), case(0)]
    assert halves_well(threshold_network(), cases, SPEC, window([0]))
    assert not halves_well(threshold_network(), [case(6), case(3)], SPEC, window([0]))


def test_halves_well__no_time_for_a_case__keeps_float32() -> None:
    assert not halves_well(threshold_network(), [case(0)], SPEC, window([10], until=5))
    assert not halves_well(threshold_network(), [], SPEC, window([0]))


def test_halves_well__time_for_one_case__compares_that_one() -> None:
    cases = [case(0), case(400)]
    assert halves_well(threshold_network(), cases, SPEC, window([10], enough=5))


def test_rounded__network__is_what_a_reader_of_the_file_gets(tmp_path: Path) -> None:
    network = build(SPEC.network, 1, 3, parameters_cap=100_000)
    before = {name: tensor.clone() for name, tensor in floating_state(network).items()}
    save_model(tmp_path / "m.safetensors", network, torch.bfloat16)
    read = load_model(tmp_path / "m.safetensors", SPEC.network, 1, 3, SPEC.caps)
    expected = floating_state(read)
    for name, tensor in floating_state(rounded(network)).items():
        assert torch.equal(tensor, expected[name])
    for name, tensor in floating_state(network).items():
        assert torch.equal(tensor, before[name])
    save_model(tmp_path / "f.safetensors", network)
    sizes = [(tmp_path / name).stat().st_size for name in ("m.safetensors", "f.safetensors")]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_training__verdict_of_validation__is_the_dtype_of_file_and_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr("pouw.ml.training.halves_well", lambda *_: dtype == "bfloat16")
    data, out = tmp_path / "data", tmp_path / "out"
    write_tiny_set(data)
    Training(tiny_request(data, out, max_steps=2), lambda: False).run()
    (snapshot,) = RunFolder(out).snapshots()
    assert snapshot.dtype == dtype
    tensors = load_file(out / snapshot.model)
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
