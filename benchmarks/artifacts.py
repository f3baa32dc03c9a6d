"""Artifacts of 270 MB, as in the paper's Table 1: sealed, named, kept, fetched, opened, loaded.

``python -m benchmarks.artifacts`` runs each step and its baseline by turns, in one process on two
cores, and takes the median of the repetitions. Files lie in a folder in memory where there is one
(``--folder``), so that the software is measured and not a disk; what a disk adds is a line of its
own (``--disk``). Memory is that of a child process which seals, keeps, gets and opens an archive of
2 GiB. The last line is one line of JSON; exit code 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests
import torch
from rich.console import Console
from rich.table import Table

from pouw.chain.accounts import dev_account
from pouw.documents import Argument, Network
from pouw.hashing import keccak
from pouw.ml.checkpoint import fill_model, save_model
from pouw.ml.networks import build
from pouw.parallel import computed_in_order
from pouw.sealing import SealedReader, Sealing, open_file
from pouw.storage.cid import Stored, hash_leaves
from pouw.storage.gateway import GatewayStore
from pouw.storage.local import LocalStore
from pouw.storage.unixfs import leaves

KEY: Final = bytes(range(32))
HASH: Final = keccak(KEY)
ARGUMENTS: Final[dict[str, Argument]] = {
    "spatial_dims": 3,
    "channels": (112, 224, 448, 960, 896),
    "strides": (2, 2, 2, 2),
    "num_res_units": 0,
    "norm": "group",
    "groups": 4,
}
MAX_PARAMETERS: Final = 1 << 30
PIECE: Final = 1 << 20
MEMORY_GOAL_MIB: Final = 64

Action = Callable[[], object]


@dataclass(frozen=True)
class Step:
    """Something of ours beside something to compare it with.

    ``goal``: how many times as fast ours has to be, None where there is none.
    """

    name: str
    ours: Action
    baseline_name: str
    baseline: Action
    goal: float | None


@dataclass(frozen=True)
class Cost:
    """Medians over the repetitions, in seconds: by the clock, and of this process's processors."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Timing:
    """What both took; ``factor`` says how many times as fast as the baseline ours is."""

    step: Step
    ours: Cost
    baseline: Cost

    @property
    def factor(self) -> float:
        """By the clock."""
        return self.baseline.clock / self.ours.clock

    @property
    def met(self) -> bool:
        """Whether the goal was reached; also where there is none."""
        return self.step.goal is None or self.factor >= self.step.goal


class Bench:
    """The files and stores that the steps work on, all below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        network = Network(name="unet", arguments=ARGUMENTS)
        self.network = build(network, 1, 3, parameters_cap=MAX_PARAMETERS)
        self.model = folder / "model.safetensors"
        save_model(self.model, self.network)
        self.size = self.model.stat().st_size
        self.store = LocalStore(folder / "store")
        self.stored = self.store.put_file(self.model)
        self.sealed = folder / "sealed"
        with Sealing(self.model, KEY) as sealing:
            kept = self.store.put_leaves(sealing)
        self.store.get_file(kept.cid, self.sealed, kept.bytes)
        self.one = memoryview(bytearray(self.model.read_bytes()))
        self.other = memoryview(bytearray(self.size))
        self.account = dev_account(0)

    def sign(self, digest: bytes) -> None:
        """As a miner signs a reveal: one signature over 32 bytes."""
        self.account.unsafe_sign_hash(digest)

    def save_hash_sign(self) -> None:
        """What one would write down first."""
        path, digest = self.folder / "model.pt", hashlib.sha256()
        torch.save(self.network.state_dict(), path)
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        self.sign(digest.digest())

    def seal_name_sign(self) -> None:
        """Every sealed leaf is made and hashed, and handed on to nobody."""
        with Sealing(self.model, KEY) as sealing:
            named = hash_leaves(sealing, lambda leaf: hashlib.sha256(leaf).digest(), waits=False)
        self.sign(keccak(named.cid.encode()))

    def seal_keep_sign(self) -> Stored:
        """The same, into a new store."""
        fresh = LocalStore(self.folder / "fresh")
        with Sealing(self.model, KEY) as sealing:
            kept = fresh.put_leaves(sealing)
        self.sign(keccak(kept.cid.encode()))
        return kept

    def copy_memory(self) -> None:
        """One memcpy into memory that is there."""
        self.other[:] = self.one

    def open(self) -> None:
        """Every chunk authenticated and in memory, for whoever reads on."""
        with SealedReader(self.sealed, KEY, HASH) as reader:

            def chunk(index: int) -> int:
                with reader.chunk(index) as view:
                    return len(view)

            assert sum(computed_in_order(chunk, range(reader.chunks))) == self.size

    def open_to_file(self) -> None:
        """The sealed file as a plain one."""
        open_file(self.sealed, self.folder / "opened", KEY, HASH)

    def hash_and_copy(self) -> None:
        """The least that a verified load could cost on one thread."""
        hashlib.sha256(self.one).digest()
        self.copy_memory()

    def get_and_fill(self) -> None:
        """From the store into a network that is there."""
        path = self.folder / "got.safetensors"
        self.store.get_file(self.stored.cid, path, self.stored.bytes)
        fill_model(path, self.network, self.size)

    def clean(self) -> None:
        """Remove what the steps left."""
        shutil.rmtree(self.folder / "fresh", ignore_errors=True)
        for name in ("model.pt", "opened", "got.safetensors", "fetched"):
            (self.folder / name).unlink(missing_ok=True)


def steps(bench: Bench, url: str) -> list[Step]:
    """All that is compared in memory."""
    gateway, session = GatewayStore(url), requests.Session()
    named = list(leaves(bench.stored.cid, bench.size, bench.store.get_block))

    def contents() -> int:
        return sum(
            len(session.get(f"{url}/ipfs/{leaf.cid}?format=raw", timeout=60).content)
            for leaf in named
        )

    def fetch() -> None:
        gateway.get_file(bench.stored.cid, bench.folder / "fetched", bench.size)

    saved = "torch.save + sha256 + sign"
    return [
        Step("seal + CID + sign", bench.seal_name_sign, saved, bench.save_hash_sign, 4),
        Step("seal + CID + keep + sign", bench.seal_keep_sign, saved, bench.save_hash_sign, None),
        Step("open", bench.open, "memcpy", bench.copy_memory, 0.5),
        Step("open to a file", bench.open_to_file, "memcpy", bench.copy_memory, None),
        Step("fetch + verify to a file", fetch, "requests .content", contents, 2),
        Step(
            "get to a ready network",
            bench.get_and_fill,
            "sha256 + memcpy",
            bench.hash_and_copy,
            1 / 1.3,
        ),
    ]


def timed(step: Step, clean: Action, repeats: int) -> Timing:
    """Both by turns; the first turn does not count."""
    ours, baseline = [], []
    for turn in range(repeats + 1):
        for action, costs in ((step.baseline, baseline), (step.ours, ours)):
            clean()
            gc.collect()
            begun, busy = time.perf_counter(), time.process_time()
            action()
            if turn:
                costs.append((time.perf_counter() - begun, time.process_time() - busy))
    clean()
    return Timing(step, _median(ours), _median(baseline))


def _median(costs: list[tuple[float, float]]) -> Cost:
    return Cost(
        statistics.median(clock for clock, _ in costs),
        statistics.median(processor for _, processor in costs),
    )


@contextmanager
def served(store: Path) -> Iterator[str]:
    """The address of ``pouw store serve`` over ``store``, in a process of its own."""
    pouw = Path(sys.executable).with_name("pouw")
    command = [pouw, "store", "serve", "--json", "--store", store, "--port", "0"]
    child = subprocess.Popen(
        [*command, "--while-stdin-open"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield json.loads(child.stdout.readline())["url"]
    finally:
        child.stdin.close()
        child.wait(30)


MEMORY = """
import json, re, sys
from pathlib import Path
from pouw.hashing import keccak
from pouw.sealing import Sealing, open_file
from pouw.storage.local import LocalStore
def peak():  # not ru_maxrss, which a child inherits
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
folder, key = Path(sys.argv[1]), bytes(32)
store, before, steps = LocalStore(folder / "store"), peak(), {}
with Sealing(folder / "archive", key) as sealing:
    stored = store.put_leaves(sealing)
steps["seal + CID + keep"] = peak() - before
store.get_file(stored.cid, folder / "sealed", stored.bytes)
steps["get"] = peak() - before
open_file(folder / "sealed", folder / "opened", key, keccak(key))
steps["open"] = peak() - before
print(json.dumps(steps))
"""


def memory_mib(folder: Path, gibibytes: float) -> dict[str, float]:
    """The peak above what the process had before, in MiB, after each step on a large archive."""
    place = folder / "large"
    place.mkdir()
    with (place / "archive").open("wb") as file:
        file.truncate(int(gibibytes * (1 << 30)))
    try:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, place], capture_output=True, text=True, check=True
        )
    finally:
        shutil.rmtree(place)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def disk_step(bench: Bench, disk: Path) -> Step:
    """A durable store beside the same bytes written and flushed as one file."""

    def keep() -> None:
        LocalStore(disk / "store").put_file(bench.model)

    def write() -> None:
        with (disk / "file").open("wb", 0) as file:
            file.write(bench.one)
            os.fsync(file.fileno())

    return Step("keep on the disk, flushed", keep, "one file, flushed", write, None)


def table(timings: list[Timing]) -> Table:
    """What a reader sees."""
    shown = Table("step", "s (cpu)", "beside", "s (cpu)", "times as fast", "goal", "met")
    for one in timings:
        goal = one.step.goal
        shown.add_row(
            one.step.name,
            f"{one.ours.clock:.3f} ({one.ours.processor:.3f})",
            one.step.baseline_name,
            f"{one.baseline.clock:.3f} ({one.baseline.processor:.3f})",
            f"{one.factor:.2f}",
            "" if goal is None else f"{goal:.2f}",
            "" if goal is None else "yes" if one.met else "no",
        )
    return shown


def main() -> int:
    """Measure, print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path("/dev/shm")  # noqa: S108
    parser.add_argument("--folder", type=Path, default=shared if shared.is_dir() else None)
    parser.add_argument("--disk", type=Path, default=None, help="default: the temporary folder")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--archive-gib", type=float, default=2)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    torch.set_num_threads(2)
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        tempfile.TemporaryDirectory(dir=arguments.disk) as disk,
    ):
        bench = Bench(Path(folder))
        with served(bench.store.directory) as url:
            todo = steps(bench, url)
            timings = [timed(step, bench.clean, arguments.repeats) for step in todo]

        def clean() -> None:
            shutil.rmtree(Path(disk) / "store", ignore_errors=True)
            (Path(disk) / "file").unlink(missing_ok=True)

        timings.append(timed(disk_step(bench, Path(disk)), clean, min(3, arguments.repeats)))
        memory = memory_mib(Path(folder), arguments.archive_gib)
    console = Console()
    console.print(table(timings))
    peak = max(memory.values())
    console.print(f"memory above baseline, {arguments.archive_gib:g} GiB: {peak:.1f} MiB", memory)
    result: dict[str, Any] = {
        "benchmark": "artifacts",
        "bytes": bench.size,
        "load": round(os.getloadavg()[0], 1),
        "memory_mib": {name: round(value, 1) for name, value in memory.items()},
        "steps": {
            one.step.name: {
                "seconds": round(one.ours.clock, 4),
                "processor_seconds": round(one.ours.processor, 4),
                "beside": one.step.baseline_name,
                "beside_seconds": round(one.baseline.clock, 4),
                "beside_processor_seconds": round(one.baseline.processor, 4),
                "factor": round(one.factor, 2),
                "goal": one.step.goal and round(one.step.goal, 2),
                "met": one.met,
            }
            for one in timings
        },
    }
    print(json.dumps(result))
    return 0 if peak <= MEMORY_GOAL_MIB and all(one.met for one in timings) else 1


if __name__ == "__main__":
    sys.exit(main())
