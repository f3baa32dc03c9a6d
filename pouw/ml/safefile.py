"""A bounded reader of safetensors files from strangers.

Nothing is allocated before its size was checked: first the file's size, then the header's length,
then every name, dtype, shape and offset against what the reader expects; the tensors have to fill
the file without gap or overlap. Two dtypes exist here: F32 and BF16.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from pouw.errors import ModelError, ModelTooLarge

MAX_HEADER_BYTES = 4 << 20
_PREFIX_BYTES = 8
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
_METADATA = "__metadata__"
_MAX_DEPTH = 8
# An unterminated string matches too: one pass over the text, whatever it holds.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")

Shape = tuple[int, ...]


def read_tensors(
    path: Path,
    shapes: Mapping[str, Shape],
    *,
    max_bytes: int,
    vectors: Sequence[str] = (),
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of ``path`` on the CPU, by name, and its metadata.

    The file must hold exactly ``shapes`` and, beside them, ``vectors``: one-dimensional tensors of
    any length. ModelTooLarge past ``max_bytes``; ModelError for everything else that is wrong.
    """
    data = _read(path, max_bytes)
    length = int.from_bytes(data[:_PREFIX_BYTES], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - _PREFIX_BYTES):
        raise ModelError(f"the header claims {length} bytes of a file of {len(data)}")
    body = data[_PREFIX_BYTES + length :]
    header = _header(bytes(data[_PREFIX_BYTES : _PREFIX_BYTES + length]))
    metadata = _metadata(header.pop(_METADATA, {}))
    expected = len(shapes) + len(vectors)
    if len(header) != expected:
        raise ModelError(f"{len(header)} tensors, not the {expected} of the network")
    spans: list[tuple[int, int]] = []
    tensors: dict[str, torch.Tensor] = {}
    for name, entry in header.items():
        if name not in shapes and name not in vectors:
            raise ModelError(f"the network has no tensor {_shown(name)}")
        dtype, shape, begin, end = _entry(name, entry)
        wanted = shapes.get(name, shape[:1])
        if shape != wanted:
            raise ModelError(f"{name} has shape {list(shape)[:8]}, not {list(wanted)}")
        size = math.prod(shape) * dtype.itemsize
        if not 0 <= begin <= end <= len(body) or end - begin != size:
            raise ModelError(f"{name} lies at bytes {begin} to {end}; it has {size} bytes")
        spans.append((begin, end))
        tensors[name] = _tensor(body[begin:end], dtype, shape)
    _contiguous(spans, len(body))
    return tensors, metadata


def _tensor(data: memoryview, dtype: torch.dtype, shape: Shape) -> torch.Tensor:
    if not len(data):
        return torch.empty(shape, dtype=dtype)
    # Offsets of a stranger need not be aligned: only then a copy is made.
    tensor = torch.frombuffer(data, dtype=dtype)
    if tensor.data_ptr() % dtype.itemsize:
        tensor = torch.frombuffer(bytearray(data), dtype=dtype)
    return tensor.reshape(shape)


def _read(path: Path, max_bytes: int) -> memoryview:
    try:
        # A FIFO in place of the file must not block, a link must not be followed.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ModelError(f"cannot open the model: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelError("the model is not a regular file")
        if status.st_size > max_bytes:
            raise ModelTooLarge(f"the model has {status.st_size} bytes, at most {max_bytes}")
        if status.st_size < _PREFIX_BYTES:
            raise ModelError(f"the model has {status.st_size} bytes: no safetensors file")
        # Not a bytearray, which would be cleared first.
        data: memoryview = torch.empty(status.st_size, dtype=torch.uint8).numpy().data
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            if file.readinto(data) != len(data):
                raise ModelError("the model changed while it was read")
    except OSError as error:
        raise ModelError(f"cannot read the model: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return data


def _header(text: bytes) -> dict[str, Any]:
    # The JSON parser recurses on the C stack, and libraries raise Python's recursion limit.
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        if depth > _MAX_DEPTH:
            raise ModelError("the header is nested too deeply")
    try:
        header = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except ValueError as error:
        raise ModelError(f"the header is not JSON: {_shown(str(error))}") from error
    if not isinstance(header, dict):
        raise ModelError("the header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key is repeated")
    return entries


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ModelError("the header's metadata are not strings")
    return value


def _entry(name: str, entry: Any) -> tuple[torch.dtype, Shape, int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelError(f"{name}: an entry has dtype, shape and data_offsets")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise ModelError(f"{name}: dtype {_shown(str(entry['dtype']))}, only F32 and BF16 are read")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _naturals(shape) or len(shape) > 8:
        raise ModelError(f"{name}: {_shown(str(shape))} is not a shape")
    if not _naturals(offsets) or len(offsets) != 2:
        raise ModelError(f"{name}: {_shown(str(offsets))} are not two offsets")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= 2**53 for item in value
    )


def _contiguous(spans: list[tuple[int, int]], size: int) -> None:
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise ModelError(f"tensors overlap or leave a gap at byte {min(begin, reached)}")
        reached = end
    if reached != size:
        raise ModelError(f"{size - reached} bytes after the last tensor")


def _shown(text: str) -> str:
    return repr(text[:80])
