"""Model files that somebody made to harm whoever scores them, each with what it deserves."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save

from pouw.ml.requests import ScoringReason

State = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Attack:
    """``write`` makes the file at a path from the state of an honest model."""

    write: Callable[[Path, State], None]
    reason: ScoringReason
    detail: str


def header_of(state: State) -> tuple[dict[str, Any], bytes]:
    """The header of an honest file and what follows it."""
    data = save(state)
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_parts(path: Path, header: dict[str, Any] | bytes, body: bytes) -> None:
    """A file of ``header`` and ``body``, its length prefix in order."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def _with_values(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path, State], None]:
    def write(path: Path, state: State) -> None:
        path.write_bytes(save({name: change(tensor) for name, tensor in state.items()}))

    return write


def _first_value(value: float) -> Callable[[Path, State], None]:
    def write(path: Path, state: State) -> None:
        changed = {name: tensor.clone() for name, tensor in state.items()}
        next(iter(changed.values())).view(-1)[-1] = value
        path.write_bytes(save(changed))

    return write


def _claimed_header(path: Path, state: State) -> None:
    path.write_bytes((2**63).to_bytes(8, "little") + save(state)[8:])


def _long_header(path: Path, state: State) -> None:
    header, body = header_of(state)
    write_parts(path, json.dumps(header).encode() + b" " * (5 << 20), body)


def _sparse_file(path: Path, _state: State) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _huge_shape(path: Path, state: State) -> None:
    header, body = header_of(state)
    header[next(iter(header))]["shape"] = [1 << 20, 1 << 20, 1 << 10]
    write_parts(path, header, body)


def _aliases(path: Path, state: State) -> None:
    header, body = header_of(state)
    by_shape: dict[str, str] = {}
    for name, entry in header.items():
        twin = by_shape.setdefault(str(entry["shape"]), name)
        entry["data_offsets"] = header[twin]["data_offsets"]
    write_parts(path, header, body)


def _ten_thousand(path: Path, state: State) -> None:
    write_parts(
        path,
        {
            f"tensor{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
            for number in range(10_000)
        },
        b"",
    )


def _zip_bomb(path: Path, _state: State) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(64 << 20))


def _gzipped(path: Path, state: State) -> None:
    path.write_bytes(gzip.compress(save(state)))


class _Bomb:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def _pickle(path: Path, _state: State) -> None:
    path.write_bytes(pickle.dumps(_Bomb(path.with_name("exploded"))))


def _deep(path: Path, _state: State) -> None:
    write_parts(path, b'{"a":' + b"[" * 500_000, b"")


def _fifo(path: Path, _state: State) -> None:
    os.mkfifo(path)


def _link(path: Path, state: State) -> None:
    target = path.with_name("target.safetensors")
    target.write_bytes(save(state))
    path.symlink_to(target)


def _nothing(path: Path, _state: State) -> None:
    path.write_bytes(b"")


ATTACKS: Final = {
    "a header that claims 2^63 bytes": Attack(_claimed_header, "model", "the header claims"),
    "a header of five megabytes": Attack(_long_header, "caps", "bytes, at most"),
    "a sparse file of a terabyte": Attack(_sparse_file, "caps", "bytes, at most"),
    "a shape of 2^50 numbers": Attack(_huge_shape, "model", "has shape"),
    "shapes turned round": Attack(
        _with_values(lambda tensor: tensor.reshape(-1)), "model", "has shape"
    ),
    "double precision": Attack(_with_values(torch.Tensor.double), "model", "only F32 and BF16"),
    "integers": Attack(_with_values(torch.Tensor.int), "model", "only F32 and BF16"),
    "half precision": Attack(_with_values(torch.Tensor.half), "model", "only F32 and BF16"),
    "one NaN": Attack(_first_value(float("nan")), "model", "not finite"),
    "one infinity": Attack(_first_value(float("-inf")), "model", "not finite"),
    "tensors that share their bytes": Attack(_aliases, "model", "overlap"),
    "ten thousand tensors": Attack(_ten_thousand, "model", "10000 tensors, not the"),
    "a zip bomb": Attack(_zip_bomb, "model", "the header claims"),
    "a compressed model": Attack(_gzipped, "model", "the header claims"),
    "a pickle": Attack(_pickle, "model", "the header claims"),
    "brackets without end": Attack(_deep, "model", "nested too deeply"),
    "a pipe that never speaks": Attack(_fifo, "model", "not a regular file"),
    "a link to another file": Attack(_link, "model", "cannot open"),
    "an empty file": Attack(_nothing, "model", "no safetensors file"),
    "weights that overflow": Attack(
        _with_values(lambda tensor: torch.full_like(tensor, 1e30)), "score", ""
    ),
    "denormal weights": Attack(
        _with_values(lambda tensor: torch.full_like(tensor, 1e-40)), "score", ""
    ),
}
