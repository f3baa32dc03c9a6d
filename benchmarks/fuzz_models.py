"""Mutated model files against the loader: nothing but a model or a ``ModelError`` may come out.

``python -m benchmarks.fuzz_models --files 100000``. File number N is the same on every machine; a
failure names it, and ``--first N --files 1`` repeats it. Each file is read in a child with limits
on memory and on CPU time for one file, so that a crash or a hang is found, named and survived.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from rich.progress import track
from safetensors.torch import save

from pouw.errors import ModelError
from pouw.ml.safefile import read_tensors

SHAPES: Final = {"a.weight": (32, 2, 3, 3), "a.bias": (4,), "b.weight": (2, 4), "none": (0, 3)}
MAX_BYTES: Final = 1 << 16
SECONDS_A_FILE: Final = 10.0
START_SECONDS: Final = 120.0
BYTES_A_FILE: Final = 256 << 20
BATCH: Final = 500
TOKENS: Final = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"null", b"true", b"NaN", b"1e999", b"-1",
    b"0", b"18446744073709551616", b"F64", b"BF16", b"__metadata__", b"data_offsets", b"shape",
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b'{"a":' * 50, b"[" * 2000, b"9" * 5000,
)  # fmt: skip

Bytes = bytearray
Mutation = Callable[[random.Random, Bytes], Bytes]


def honest() -> bytes:
    """A small model file, in the reference writer's bytes."""
    torch.manual_seed(0)
    state = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    return save(state, metadata={"format": "pt"})


def _header_length(data: Bytes) -> int:
    return min(int.from_bytes(data[:8], "little"), max(0, len(data) - 8))


def _with_header(data: Bytes, text: bytes, *, honest_length: bool = True) -> Bytes:
    length = len(text).to_bytes(8, "little") if honest_length else bytes(data[:8])
    return Bytes(length + text + data[8 + _header_length(data) :])


def flip_bits(source: random.Random, data: Bytes) -> Bytes:
    """Some bits anywhere."""
    for _ in range(source.randint(1, 8)):
        if data:
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return data


def flip_header_bits(source: random.Random, data: Bytes) -> Bytes:
    """Some bits of prefix and header."""
    for _ in range(source.randint(1, 4)):
        data[source.randrange(8 + _header_length(data))] ^= 1 << source.randrange(8)
    return data


def cut_or_grow(source: random.Random, data: Bytes) -> Bytes:
    """A piece less, twice, or more."""
    start = source.randrange(len(data) + 1)
    stop = min(len(data), start + source.randrange(1, 64))
    return source.choice(
        (
            data[:start],
            data[:start] + data[stop:],
            data[:stop] + data[start:],
            data + Bytes(source.randbytes(source.randrange(1, 64))),
        )
    )


def lie_about_length(source: random.Random, data: Bytes) -> Bytes:
    """Another length of the header."""
    edge = source.choice((0, 1, len(data), len(data) - 8, 2**31, 2**32, 2**63, 2**64 - 1))
    data[:8] = ((edge + source.randint(-2, 2)) % 2**64).to_bytes(8, "little")
    return data


def put_tokens(source: random.Random, data: Bytes) -> Bytes:
    """Pieces of JSON where they do not belong."""
    text = Bytes(data[8 : 8 + _header_length(data)])
    for _ in range(source.randint(1, 3)):
        place = source.randrange(len(text) + 1)
        text[place : place + source.choice((0, 1, 4))] = source.choice(TOKENS)
    return _with_header(data, bytes(text), honest_length=source.random() < 0.8)


def change_entries(source: random.Random, data: Bytes) -> Bytes:
    """JSON in order that says something else."""
    try:
        header = json.loads(data[8 : 8 + _header_length(data)])
        name = source.choice([key for key in header if key != "__metadata__"])
        entry = header[name]
        kind = source.choice(("dtype", "shape", "data_offsets", "name", "drop", "swap", "many"))
        if kind == "name":
            header[source.choice(("", "../x", "é" * 99, name + "\x00"))] = header.pop(name)
        elif kind == "drop":
            entry.pop(source.choice(list(entry)))
        elif kind == "swap":
            other = source.choice([key for key in header if key != "__metadata__"])
            entry["data_offsets"] = header[other]["data_offsets"]
        elif kind == "many":
            header |= {f"{name}{number}": entry for number in range(source.randrange(1, 300))}
        else:
            entry[kind] = _other_value(source, entry[kind])
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
        return put_tokens(source, data)
    return _with_header(data, json.dumps(header).encode())


def _other_value(source: random.Random, value: Any) -> Any:
    numbers = (0, 1, -1, 2**31, 2**53, 2**63, 2**64, 1.5, True, None, "1", [], {})
    if isinstance(value, list) and value and source.random() < 0.7:
        changed = list(value)
        changed[source.randrange(len(changed))] = source.choice(numbers)
        return changed
    other = ("F32", "F64", "I8", "BF16", "", "F8_E4M3", [1] * 40, list(numbers))
    return source.choice((*numbers, *other))


MUTATIONS: Final[tuple[Mutation, ...]] = (
    flip_bits,
    flip_header_bits,
    cut_or_grow,
    lie_about_length,
    put_tokens,
    change_entries,
)


def mutant(number: int, origin: bytes) -> bytes:
    """File ``number``: one to three mutations of the honest file."""
    source = random.Random(number)  # noqa: S311 - to be repeated, not to be secret
    data = Bytes(origin)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        if len(data) >= 8 and _header_length(data):
            data = source.choice(MUTATIONS)(source, data)
    return bytes(data)


def outcome(path: Path) -> str:
    """What the loader makes of a file: "loaded", or the kind of the refusal.

    Values are read into tensors that are there, as they are into a network's.
    """
    into = {name: torch.empty(shape) for name, shape in SHAPES.items()}
    try:
        tensors, _ = read_tensors(path, SHAPES, max_bytes=MAX_BYTES, into=into)
    except ModelError as error:
        return type(error).__name__
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == SHAPES
    return "loaded"


def _read_batches(pipe: Connection, folder: str) -> None:
    """A child: outcomes by batch, until the pipe is closed; it says where it is before each."""
    soft = resource.getrlimit(resource.RLIMIT_AS)[1]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES_A_FILE, soft))
    origin, path = honest(), Path(folder) / "model.safetensors"
    while True:
        first, last = pipe.recv()
        for number in range(first, last):
            path.write_bytes(mutant(number, origin))
            begun = time.process_time()
            found = outcome(path)
            pipe.send((number, found, time.process_time() - begun))


@dataclass
class Tally:
    """What became of all files so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest_seconds: float = 0.0


def _next_answer(pipe: Connection, patience_seconds: float) -> tuple[int, str, float]:
    if not pipe.poll(patience_seconds):
        raise TimeoutError(f"no answer after {patience_seconds} s")
    number, found, seconds = pipe.recv()
    return number, found, seconds


def fuzz(first: int, files: int) -> Tally:
    """Read files ``first`` to ``first + files`` in a child, started anew where it dies."""
    tally, next_file, end = Tally(), first, first + files
    context = multiprocessing.get_context("spawn")
    bar = iter(track(range(files), "mutated files", disable=not sys.stderr.isatty()))
    with TemporaryDirectory(prefix="fuzz-") as folder:
        while next_file < end:
            pipe, theirs = context.Pipe()
            child = context.Process(target=_read_batches, args=(theirs, folder), daemon=True)
            child.start()
            theirs.close()
            warm = False
            try:
                while next_file < end:
                    last = min(end, next_file + BATCH)
                    pipe.send((next_file, last))
                    while next_file < last:
                        patience = SECONDS_A_FILE if warm else START_SECONDS
                        number, found, seconds = _next_answer(pipe, patience)
                        warm = True
                        tally.outcomes[found] += 1
                        tally.slowest_seconds = max(tally.slowest_seconds, seconds)
                        next_file = number + 1
                        next(bar, None)
            except (EOFError, OSError, TimeoutError) as error:
                child.kill()
                tally.failures.append({"file": next_file, "what": repr(error)})
                next_file += 1
            finally:
                pipe.close()
                child.kill()
                child.join()
    return tally


def main() -> int:
    """Fuzz and report; 1 where anything but a model or the typed refusal came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    begun = time.monotonic()
    tally = fuzz(options.first, options.files)
    result = {
        "benchmark": "fuzz_models",
        "first": options.first,
        "files": sum(tally.outcomes.values()) + len(tally.failures),
        "outcomes": dict(tally.outcomes),
        "failures": tally.failures[:20],
        "slowest_file_ms": round(tally.slowest_seconds * 1000, 2),
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(json.dumps(result))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
