"""How far the score of one model differs between machines that score it in float32.

``python -m benchmarks.score_noise`` trains 100 small networks on the built-in brain set (half of
them in 2D, half in 3D; five snapshots of each training), scores each by the oracle's own code
on one thread, and again on other numbers of threads, without AVX-512, without AVX2, and with the
network in bfloat16 (which scoring never is). The miner's default margin follows from the largest
difference. Interrupted, it goes on where it was; ``--work`` holds models and scores. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
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


@dataclass(frozen=True)
class Setting:
    """One way to score; ``environment`` has to be there before torch is loaded."""

    name: str
    threads: int = 1
    bfloat16: bool = False
    environment: dict[str, str] = field(default_factory=dict)


SETTINGS: Final = (
    Setting("float32, 1 thread"),
    Setting("float32, 2 threads", 2),
    Setting("float32, 4 threads", 4),
    Setting("float32, 1 thread, no AVX-512", environment=NO_AVX512),
    Setting("float32, 4 threads, no AVX-512", 4, environment=NO_AVX512),
    Setting("float32, 1 thread, no AVX2", environment=NO_AVX2),
    Setting("bfloat16, 1 thread", bfloat16=True),
)


@dataclass(frozen=True)
class Model:
    """A model file and the test set that it is scored on."""

    name: str
    path: Path
    data: Path
    spatial_dims: int


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


def scores(work: Path, models: list[Model], setting: Setting) -> dict[str, int]:
    """The score of each model by name, from ``work`` where it is there already."""
    log = work / "scores" / f"{setting.name.replace(' ', '-').replace(',', '')}.jsonl"
    log.parent.mkdir(exist_ok=True)
    known = dict(json.loads(line) for line in _whole_lines(log))
    missing = [model for model in models if model.name not in known]
    if missing:
        with log.open("a") as out, _child(work, setting) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            for model in track(missing, setting.name, disable=not sys.stderr.isatty()):
                child.stdin.write(f"{model.spatial_dims} {model.data} {model.path}\n")
                child.stdin.flush()
                known[model.name] = int(child.stdout.readline())
                out.write(json.dumps([model.name, known[model.name]]) + "\n")
                out.flush()
    return {model.name: known[model.name] for model in models}


def _whole_lines(log: Path) -> list[str]:
    text = log.read_text() if log.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


@contextlib.contextmanager
def _child(work: Path, setting: Setting) -> Iterator[subprocess.Popen[str]]:
    threads = {"OMP_NUM_THREADS": str(setting.threads), "MKL_NUM_THREADS": str(setting.threads)}
    command = [sys.executable, "-m", "benchmarks.score_noise", "--child", str(setting.threads)]
    with (work / "child.log").open("a") as errors:
        child = subprocess.Popen(
            [*command, *(["--bfloat16"] if setting.bfloat16 else [])],
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


def serve(threads: int, *, bfloat16: bool) -> None:
    """The child: a score in ppm for every line that names a model and its test set."""
    torch.set_flush_denormal(True)
    scorer = Scorer("cpu", threads)
    for line in sys.stdin:
        dims, data, path = line.split()
        spec = brain_spec(int(dims), len(read_dataset(Path(data)).test))
        request = ScoringRequest(id="m", spec=spec, data=Path(data), model=Path(path))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            answer = scorer.answer(request)
        assert answer.score_ppm is not None, answer.detail
        assert not any(case.failed for case in answer.cases), answer
        print(answer.score_ppm, flush=True)


def main() -> int:
    """Train, score, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--work", type=Path, default=Path(".cache/score-noise"))
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bfloat16", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(options.child, bfloat16=options.bfloat16)
        return 0
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    models = trained(work, options.models)
    reference = scores(work, models, SETTINGS[0])
    table = Table("scored as", "changed", "median", "99 %", "largest (ppm)")
    rows = {}
    for setting in SETTINGS[1:]:
        found = scores(work, models, setting)
        differences = sorted(abs(found[name] - reference[name]) for name in reference)
        rows[setting.name] = {
            "changed": sum(difference > 0 for difference in differences),
            "median_ppm": statistics.median(differences),
            "p99_ppm": differences[int(0.99 * (len(differences) - 1))],
            "max_ppm": differences[-1],
        }
        table.add_row(setting.name, *(f"{value:g}" for value in rows[setting.name].values()))
    Console(stderr=True).print(table)
    span = (min(reference.values()), max(reference.values()))
    print(json.dumps({"benchmark": "score_noise", "n": len(models), "scores": span, **rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
