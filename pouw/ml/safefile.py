"""A bounded reader of safetensors files from strangers.

Nothing is allocated before its size was checked: first the file's size, then the header's length,
then every name, dtype, shape and offset against what the reader expects; the tensors have to fill
the file without gap or overlap. Two dtypes exist here, F32 and BF16; both become float32. Values
are read piece by piece to where they belong, and looked at while they are in the cache.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from pouw.errors import ModelError, ModelTooLarge
from pouw.parallel import computed_in_order

MAX_HEADER_BYTES = 4 << 20
_PREFIX_BYTES = 8
_PIECE_VALUES = 1 << 18
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
_METADATA = "__metadata__"
_MAX_DEPTH = 8
# An unterminated string matches too: one pass over the text, whatever it holds.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a tensor lies in the file, in bytes from its beginning."""

    name: str
    dtype: torch.dtype
    shape: Shape
    begin: int
    end: int

    @property
    def values(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def read_tensors(
    path: Path,
    shapes: Mapping[str, Shape],
    *,
    max_bytes: int,
    vectors: Sequence[str] = (),
    into: Mapping[str, torch.Tensor] | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of ``path`` in float32 on the CPU, by name, and its metadata.

    The file must hold exactly ``shapes`` and, beside them, ``vectors``: one-dimensional tensors of
    any length. Tensors named in ``into`` (float32, of those shapes) are filled and returned in
    place of new ones, also when a later value turns out to be wrong. ModelTooLarge past
    ``max_bytes``; ModelError for everything else that is wrong, a value that is not finite too.
    OSError where this machine cannot read the file, which says nothing about what is in it.
    """
    into = into or {}
    with _opened(path, max_bytes) as (descriptor, size):
        start, header = _read_header(descriptor, size)
        metadata = _metadata(header.pop(_METADATA, {}))
        entries = _entries(header, shapes, vectors, size - start)
        tensors = {
            entry.name: into[entry.name] if entry.name in into else _plain(entry.shape)
            for entry in entries
        }
        _fill(tensors, entries, descriptor, start)
    return tensors, metadata


def _entries(
    header: Mapping[str, Any], shapes: Mapping[str, Shape], vectors: Sequence[str], size: int
) -> list[_Entry]:
    """What the header says of its tensors, every word of it checked."""
    expected = len(shapes) + len(vectors)
    if len(header) != expected:
        raise ModelError(f"{len(header)} tensors, not the {expected} of the network")
    entries = []
    for name, said in header.items():
        if name not in shapes and name not in vectors:
            raise ModelError(f"the network has no tensor {_shown(name)}")
        entry = _entry(name, said)
        wanted = shapes.get(name, (entry.values,))
        if entry.shape != wanted:
            raise ModelError(f"{name} has shape {list(entry.shape)[:8]}, not {list(wanted)}")
        length = entry.values * entry.dtype.itemsize
        if not 0 <= entry.begin <= entry.end <= size or entry.end - entry.begin != length:
            raise ModelError(
                f"{name} lies at bytes {entry.begin} to {entry.end}; it has {length} bytes"
            )
        entries.append(entry)
    _contiguous([(entry.begin, entry.end) for entry in entries], size)
    return entries


def _fill(
    tensors: Mapping[str, torch.Tensor], entries: Sequence[_Entry], descriptor: int, start: int
) -> None:
    """Read the values of every entry into its tensor, several pieces at a time."""
    # A tensor elsewhere, or in another memory layout, is filled by way of a plain one.
    plain = {
        name: tensor.detach() if tensor.is_contiguous() and tensor.is_cpu else _plain(tensor.shape)
        for name, tensor in tensors.items()
    }

    def bring(piece: tuple[_Entry, int]) -> None:
        entry, first = piece
        # numpy: a piece is too small for torch's threads to pay.
        values = plain[entry.name].view(-1).numpy()[first : first + _PIECE_VALUES]
        offset = start + entry.begin + first * entry.dtype.itemsize
        if entry.dtype == torch.float32:
            _read_at(descriptor, values.data.cast("B"), offset)
        else:
            # A bfloat16 is the upper half of a float32.
            halves = np.empty(len(values), np.uint16)
            _read_at(descriptor, halves.data.cast("B"), offset)
            np.left_shift(halves, 16, out=values.view(np.uint32), dtype=np.uint32)
        if not (math.isfinite(values.min()) and math.isfinite(values.max())):
            raise ModelError(f"{entry.name} holds values that are not finite")

    starts = ((entry, range(0, entry.values, _PIECE_VALUES)) for entry in entries)
    pieces = ((entry, first) for entry, firsts in starts for first in firsts)
    for _ in computed_in_order(bring, pieces):
        pass
    for name, tensor in tensors.items():
        if plain[name].data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(plain[name])


def _plain(shape: Shape) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float32)


@contextlib.contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[tuple[int, int]]:
    """A descriptor of the file, and its size in bytes."""
    try:
        # A FIFO in place of the file must not block, a link must not be followed.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ModelError("cannot open the model: it is a link") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelError("the model is not a regular file")
        if status.st_size > max_bytes:
            raise ModelTooLarge(f"the model has {status.st_size} bytes, at most {max_bytes}")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def _read_header(descriptor: int, size: int) -> tuple[int, dict[str, Any]]:
    """Where the tensors begin, and the header before them."""
    if size < _PREFIX_BYTES:
        raise ModelError(f"the model has {size} bytes: no safetensors file")
    prefix = memoryview(bytearray(_PREFIX_BYTES))
    _read_at(descriptor, prefix, 0)
    length = int.from_bytes(prefix, "little")
    if length > min(MAX_HEADER_BYTES, size - _PREFIX_BYTES):
        raise ModelError(f"the header claims {length} bytes of a file of {size}")
    text = memoryview(bytearray(length))
    _read_at(descriptor, text, _PREFIX_BYTES)
    return _PREFIX_BYTES + length, _header(bytes(text))


def _read_at(descriptor: int, view: memoryview, offset: int) -> None:
    if os.preadv(descriptor, [view], offset) != len(view):
        raise ModelError("the model changed while it was read")


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


def _entry(name: str, entry: Any) -> _Entry:
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
    return _Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


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
