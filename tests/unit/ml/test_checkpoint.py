from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from tiny_task import tiny_spec

from pouw.errors import ModelError, ModelTooLarge
from pouw.hashing import sha256
from pouw.ml.checkpoint import (
    CheckpointState,
    fill_model,
    floating_state,
    load_checkpoint,
    load_model,
    save_checkpoint,
    save_model,
)
from pouw.ml.networks import build

SPEC = tiny_spec()


def fresh(seed: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(SPEC.network, 1, 3, parameters_cap=SPEC.caps.parameters)


def load(path: Path, **caps: int) -> torch.nn.Module:
    return load_model(path, SPEC.network, 1, 3, SPEC.caps.model_copy(update=caps))


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path: Path, header: dict[str, Any] | bytes, body: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, fresh())
    return path


def test_load_model__float32__restores_every_weight(model: Path) -> None:
    loaded, original = floating_state(load(model)), floating_state(fresh())
    assert all(torch.equal(loaded[name], original[name]) for name in original)
    assert not torch.equal(
        loaded["model.0.conv.weight"], floating_state(fresh(2))["model.0.conv.weight"]
    )


def test_save_model__same_weights__same_bytes_and_digest(tmp_path: Path) -> None:
    first = save_model(tmp_path / "a.safetensors", fresh())
    assert first == save_model(tmp_path / "b.safetensors", fresh())
    assert first == sha256((tmp_path / "a.safetensors").read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_fill_model__another_memory_layout__keeps_it_and_takes_the_weights(tmp_path: Path) -> None:
    conv = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    path = tmp_path / "conv.safetensors"
    save_model(path, torch.nn.Conv2d(3, 8, 3))
    fill_model(path, conv, 1 << 20)
    plain = torch.nn.Conv2d(3, 8, 3)
    fill_model(path, plain, 1 << 20)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not conv.weight.is_contiguous()
    assert torch.equal(conv.weight, plain.weight)


def test_load_model__more_values_than_a_piece__restores_every_one(tmp_path: Path) -> None:
    path, wide, other = tmp_path / "wide", torch.nn.Linear(1021, 600), torch.nn.Linear(1021, 600)
    for dtype in (torch.float32, torch.bfloat16):
        save_model(path, wide, dtype)
        fill_model(path, other, 1 << 22)
        assert torch.equal(other.weight, wide.weight.to(dtype).float())
        assert torch.equal(other.bias, wide.bias.to(dtype).float())


def test_load_model__bfloat16__is_cast_to_float32(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, fresh(), torch.bfloat16)
    loaded, original = floating_state(load(path)), floating_state(fresh())
    for name, tensor in loaded.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, original[name].to(torch.bfloat16).to(torch.float32))


def test_load_model__over_the_byte_cap__refused_as_too_large(model: Path) -> None:
    with pytest.raises(ModelTooLarge, match="at most 100"):
        load(model, model_bytes=100)


def test_load_model__offsets_not_aligned__still_read(model: Path) -> None:
    header, body = parts(model)
    text = json.dumps(header).encode()
    write(model, text + b" " * (3 - len(text) % 2), body)
    loaded, original = floating_state(load(model)), floating_state(fresh())
    assert all(torch.equal(loaded[name], original[name]) for name in original)


Header = dict[str, Any]
WEIGHT = "model.0.conv.weight"


def _change(header: Header, **entry: Any) -> Header:
    return {**header, WEIGHT: {**header[WEIGHT], **entry}}


def _swap_offsets(header: Header) -> Header:
    names = [name for name in header if name != "__metadata__"]
    first, second = header[names[0]], header[names[1]]
    shared = {**second, "data_offsets": first["data_offsets"]}
    return (
        {**header, names[1]: shared}
        if first["shape"] == second["shape"]
        else _change(header, data_offsets=[0, header[WEIGHT]["data_offsets"][1]])
    )


HOSTILE: dict[str, tuple[Callable[[Header, bytes], tuple[Header | bytes, bytes]], str]] = {
    "tensor missing": (
        lambda h, b: ({k: v for k, v in h.items() if k != WEIGHT}, b),
        "tensors, not the",
    ),
    "tensor added": (
        lambda h, b: ({**h, "extra": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, b),
        "tensors, not the",
    ),
    "tensor renamed": (
        lambda h, b: ({("evil" if k == WEIGHT else k): v for k, v in h.items()}, b),
        "no tensor 'evil'",
    ),
    "wrong shape": (lambda h, b: (_change(h, shape=[72]), b), "has shape"),
    "eager dtype": (lambda h, b: (_change(h, dtype="F64"), b), "only F32 and BF16"),
    "dtype no text": (lambda h, b: (_change(h, dtype=["F32"]), b), "only F32 and BF16"),
    "negative shape": (lambda h, b: (_change(h, shape=[-8, -1, 3, 3]), b), "not a shape"),
    "shape of floats": (lambda h, b: (_change(h, shape=[8.0, 1, 3, 3]), b), "not a shape"),
    "shape of booleans": (lambda h, b: (_change(h, shape=[True]), b), "not a shape"),
    "offsets reversed": (lambda h, b: (_change(h, data_offsets=[288, 0]), b), "lies at bytes"),
    "offsets outside": (
        lambda h, b: (_change(h, data_offsets=[len(b), len(b) + 288]), b),
        "lies at bytes",
    ),
    "offsets of three": (lambda h, b: (_change(h, data_offsets=[0, 1, 2]), b), "two offsets"),
    "offsets shared": (lambda h, b: (_swap_offsets(h), b), "overlap|lies at bytes"),
    "unknown key": (lambda h, b: (_change(h, code="x"), b), "an entry has"),
    "entry no object": (lambda h, b: ({**h, WEIGHT: 7}, b), "an entry has"),
    "metadata no strings": (lambda h, b: ({**h, "__metadata__": {"a": 1}}, b), "metadata"),
    "bytes after": (lambda h, b: (h, b + b"\0" * 8), "after the last tensor"),
    "gap before": (
        lambda h, b: (
            {
                k: {**v, "data_offsets": [o + 4 for o in v["data_offsets"]]} if "dtype" in v else v
                for k, v in h.items()
            },
            b"\0" * 4 + b,
        ),
        "gap",
    ),
    "body cut": (lambda h, b: (h, b[:-4]), "lies at bytes"),
    "key repeated": (lambda h, b: (b'{"a":{},"a":{}}', b), "repeated"),
    "nested deeply": (lambda h, b: (b'{"a":' + b"[" * 900_000, b), "nested too deeply"),
    "nested behind a string": (
        lambda h, b: (b'{"' + b"]" * 99_999 + b'\\"":' + b"[" * 100_000, b),
        "nested too deeply",
    ),
    "quotes without end": (lambda h, b: (b'{"' + b'\\"' * 400_000, b), "not JSON"),
    "a long integer": (lambda h, b: (b'{"a":' + b"9" * 10_000 + b"}", b), "not JSON"),
    "not a number": (lambda h, b: (b'{"a":NaN}', b), "not JSON"),
    "not UTF-8": (lambda h, b: (b'{"\xff":1}', b), "not JSON"),
    "a list": (lambda h, b: (b"[]", b), "not a JSON object"),
    "empty header": (lambda h, b: (b"", b), "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
def test_load_model__hostile_file__refused_with_the_reason(model: Path, attack: str) -> None:
    change, reason = HOSTILE[attack]
    write(model, *change(*parts(model)))
    with pytest.raises(ModelError, match=reason):
        load(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_load_model__weight_not_finite__refused(tmp_path: Path, value: float) -> None:
    network = fresh()
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = value
    save_model(tmp_path / "m.safetensors", network)
    with pytest.raises(ModelError, match="not finite"):
        load(tmp_path / "m.safetensors")


def test_load_model__header_longer_than_the_file__refused_before_reading_it(model: Path) -> None:
    model.write_bytes((2**63).to_bytes(8, "little") + model.read_bytes()[8:])
    with pytest.raises(ModelError, match="the header claims"):
        load(model)


def test_load_model__pickle_or_nothing__refused_unopened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    bomb = tmp_path / "model.pt"
    bomb.write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(bomb)
    os.mkfifo(tmp_path / "pipe")
    for name in ("model.pt", "empty", "folder", "link", "pipe"):
        with pytest.raises(ModelError):
            load(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_load_model__not_there__is_no_fault_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent")


def step(network: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    inputs = torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16)
    network(inputs).square().mean().backward()
    optimiser.step()


def adamw(network: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=0.01, fused=True)


def test_checkpoint__loaded_into_a_fresh_network__training_goes_on_bit_by_bit(
    tmp_path: Path,
) -> None:
    network, path = fresh(), tmp_path / "c.safetensors"
    optimiser = adamw(network)
    step(network, optimiser)
    average = {name: value * 2 for name, value in floating_state(network).items()}
    state = CheckpointState(1, -5, (0,), "before.safetensors", "ab")
    assert save_checkpoint(path, network, average, optimiser, state) == sha256(path.read_bytes())

    other = fresh(2)
    other_optimiser, other_average = adamw(other), floating_state(fresh(3))
    assert load_checkpoint(path, other, other_average, other_optimiser) == state
    assert all(torch.equal(other_average[name], average[name]) for name in average)
    step(network, optimiser)
    step(other, other_optimiser)
    one, two = floating_state(network), floating_state(other)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_load_checkpoint__metadata_missing__refused_and_nothing_changed(tmp_path: Path) -> None:
    network, path = fresh(), tmp_path / "c.safetensors"
    optimiser = adamw(network)
    step(network, optimiser)
    state = CheckpointState(1, 0, (0,), "", "")
    save_checkpoint(path, network, floating_state(fresh(4)), optimiser, state)
    header, body = parts(path)
    del header["__metadata__"]["step"]
    write(path, header, body)
    other = fresh(2)
    with pytest.raises(ModelError, match="metadata are incomplete"):
        load_checkpoint(path, other, floating_state(fresh(3)), adamw(other))
    assert torch.equal(floating_state(other)[WEIGHT], floating_state(fresh(2))[WEIGHT])


def test_load_checkpoint__a_plain_model__refused(tmp_path: Path, model: Path) -> None:
    network = fresh()
    with pytest.raises(ModelError, match="tensors, not the"):
        load_checkpoint(model, network, floating_state(network), adamw(network))


def test_save_model__other_dtype__refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="float32 or bfloat16"):
        save_model(tmp_path / "m.safetensors", fresh(), torch.float16)


def test_load_model__file_of_the_reference_writer__is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(save(dict(floating_state(fresh()))))
    assert isinstance(load(path), torch.nn.Module)
