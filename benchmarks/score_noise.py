"""How far the score of one model differs between machines that score it in float32.

``python -m benchmarks.score_noise`` trains 100 small networks on the built-in brain set (half of
them in 2D, half in 3D; five snapshots of each training), scores each by the oracle's own code
on one thread, and again on other numbers of threads, without AVX-512, without AVX2, without
oneDNN (other kernels, as another library's would be), and with the network in bfloat16 (which
scoring never is). The miner's default margin follows from the largest difference. Interrupted, it
goes on where it was; ``--work`` holds models and scores. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.brain_models import brain_data, brain_spec, train
from pouw.ml.data import read_dataset
from pouw.ml.device import describe_device
from pouw.ml.requests import ScoringRequest
from pouw.ml.scoring import Scorer

STEPS: Final = (8, 16, 24, 40, 60)
NO_AVX512: Final = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
NO_AVX2: Final = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
}


RESULTS: Final = Path(__file__).parent / "results" / "score_noise.json"
ENOUGH: Final = 100
SAFETY: Final = 10  # for processors, libraries and networks that were not measured
# One voxel of another label in a test set of 10 cases with two structures of 500 voxels.
VOXEL_OF_A_SMALL_SET_PPM: Final = 100


@dataclass(frozen=True)
class Setting:
    """One way to score; ``environment`` has to be there before torch is loaded."""

    name: str
    threads: int = 1
    bfloat16: bool = False
    onednn: bool = True
    environment: dict[str, str] = field(default_factory=dict)


SETTINGS: Final = (
    Setting("float32, 1 thread"),
    Setting("float32, 2 threads", 2),
    Setting("float32, 4 threads", 4),
    Setting("float32, 1 thread, no AVX-512", environment=NO_AVX512),
    Setting("float32, 4 threads, no AVX-512", 4, environment=NO_AVX512),
    Setting("float32, 1 thread, no AVX2", environment=NO_AVX2),
    Setting("float32, 1 thread, no oneDNN", onednn=False),
    Setting("bfloat16, 1 thread", bfloat16=True),
)


@dataclass(frozen=True)
class Model:
    """A model file and the test set that it is scored on."""

    name: str
    path: Path
    data: Path
    spatial_dims: int


def margin_ppm(differences: dict[str, dict[str, float]]) -> int:
    """What a claim should leave off, in tens of ppm.

    SAFETY times the largest difference in float32, and never less than one voxel of a small set.
    """
    largest = max(row["max_ppm"] for name, row in differences.items() if "float32" in name)
    return max(VOXEL_OF_A_SMALL_SET_PPM, math.ceil(largest * SAFETY / 10) * 10)


def trained(work: Path, count: int) -> list[Model]:
    """``count`` models, trained where they are not there yet."""
    models, plans = [], []
    for number in range(-(-count // len(STEPS))):
        dims = 2 + number % 2
        data = work / f"brain{dims}d"
        paths = {step: work / "models" / f"{dims}d-{number:02d}-{step:03d}" for step in STEPS}
        plans.append((data, dims, number, paths))
        models += [Model(path.name, path, data, dims) for path in paths.values()]
    for data, dims, number, paths in track(plans, "train", disable=not sys.stderr.isatty()):
        if not all(path.exists() for path in paths.values()):
            brain_data(data, dims, seed=1)
            train(data, brain_spec(dims, 1), number, paths)
    return models[:count]


@dataclass(frozen=True)
class Scored:
    """A score and the TP, FP and FN of all cases behind it, which show less than a ppm."""

    score_ppm: int
    counts: tuple[int, ...]

    @property
    def voxels(self) -> int:
        """How many voxels of some foreground label its cases hold."""
        return sum(self.counts[0::3]) + sum(self.counts[2::3])


def scores(work: Path, models: list[Model], setting: Setting) -> dict[str, Scored]:
    """What each model by name scored, from ``work`` where it is there already."""
    log = work / "scores" / f"{setting.name.replace(' ', '-').replace(',', '')}.jsonl"
    log.parent.mkdir(exist_ok=True)
    known = {}
    whole = _whole_lines(log)
    for line in whole:
        name, score_ppm, counts = json.loads(line)
        known[name] = Scored(score_ppm, tuple(counts))
    missing = [model for model in models if model.name not in known]
    if missing:
        log.write_text("".join(whole))  # without what a kill left of a line
        with log.open("a") as out, _child(work, setting) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            for model in track(missing, setting.name, disable=not sys.stderr.isatty()):
                child.stdin.write(f"{model.spatial_dims} {model.data} {model.path}\n")
                child.stdin.flush()
                score_ppm, counts = json.loads(child.stdout.readline())
                known[model.name] = Scored(score_ppm, tuple(counts))
                out.write(json.dumps([model.name, score_ppm, counts]) + "\n")
                out.flush()
    return {model.name: known[model.name] for model in models}


def _whole_lines(log: Path) -> list[str]:
    text = log.read_text() if log.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def difference(reference: dict[str, Scored], other: dict[str, Scored]) -> dict[str, float]:
    """How the scores of ``other`` differ from those of ``reference``, model by model.

    ``changed`` models have another count somewhere; ``voxels_max_ppm``: by how much all counts of a
    model changed at most, in parts per million of its test set's foreground voxels.
    """
    ppm = sorted(abs(other[name].score_ppm - one.score_ppm) for name, one in reference.items())
    moved = [
        sum(abs(a - b) for a, b in zip(other[name].counts, one.counts, strict=True)) / one.voxels
        for name, one in reference.items()
    ]
    return {
        "changed": sum(share > 0 for share in moved),
        "median_ppm": statistics.median(ppm),
        "p99_ppm": ppm[int(0.99 * (len(ppm) - 1))],
        "max_ppm": ppm[-1],
        "voxels_max_ppm": round(1e6 * max(moved), 1),
    }


@contextlib.contextmanager
def _child(work: Path, setting: Setting) -> Iterator[subprocess.Popen[str]]:
    threads = {"OMP_NUM_THREADS": str(setting.threads), "MKL_NUM_THREADS": str(setting.threads)}
    command = [sys.executable, "-m", "benchmarks.score_noise", "--child", str(setting.threads)]
    with (work / "child.log").open("a") as errors:
        child = subprocess.Popen(
            [
                *command,
                *(["--bfloat16"] if setting.bfloat16 else []),
                *([] if setting.onednn else ["--no-onednn"]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **threads, **setting.environment},
        )
    with child:
        try:
            yield child
        except BaseException:
            child.kill()
            raise


def serve(threads: int, *, bfloat16: bool, onednn: bool) -> None:
    """The child: score and counts for every line that names a model and its test set."""
    wanted = os.environ.get("ATEN_CPU_CAPABILITY", torch.backends.cpu.get_cpu_capability())
    assert torch.backends.cpu.get_cpu_capability().lower() == wanted.lower(), wanted
    torch.set_flush_denormal(True)
    scorer = Scorer("cpu")
    torch.set_num_threads(threads)
    for line in sys.stdin:
        dims, data, path = line.split()
        spec = brain_spec(int(dims), len(read_dataset(Path(data)).test))
        request = ScoringRequest(id="m", spec=spec, data=Path(data), model=Path(path))
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
            torch.backends.mkldnn.flags(enabled=onednn),
        ):
            answer = scorer.answer(request)
        assert answer.score_ppm is not None, answer.detail
        assert not any(case.failed for case in answer.cases), answer
        counts = [count for case in answer.cases for label in case.counts for count in label]
        print(json.dumps([answer.score_ppm, counts]), flush=True)


def main() -> int:
    """Train, score, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path(".build/score-noise"))
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bfloat16", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--no-onednn", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(options.child, bfloat16=options.bfloat16, onednn=not options.no_onednn)
        return 0
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    models = trained(work, options.models)
    reference = scores(work, models, SETTINGS[0])
    rows = {
        setting.name: difference(reference, scores(work, models, setting))
        for setting in SETTINGS[1:]
    }
    table = Table("scored as", *next(iter(rows.values())))
    for name, row in rows.items():
        table.add_row(name, *(f"{value:g}" for value in row.values()))
    Console(stderr=True).print(table)
    found = [scored.score_ppm for scored in reference.values()]
    result = {
        "benchmark": "score_noise",
        "models": len(models),
        "lowest_ppm": min(found),
        "highest_ppm": max(found),
        "device": describe_device(torch.device("cpu"), 1),
        "differences": rows,
        "margin_ppm": margin_ppm(rows),
    }
    if len(models) >= ENOUGH:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
