"""How far honest repetitions of training end from each other, and how far forgeries do.

``python -m benchmarks.provenance`` trains every network of the registry on the built-in brain
tissue in segments of 50 steps. Every segment is trained again with other threads, instruction sets
and memory layouts, and forged in the ways that ``ATTACKS`` lists; both are compared after 10, 25
and 50 steps. The bound in ``pouw/ml/deviation.py`` has to lie in between: this prints what share of
honest segments it rejects and of forged ones it accepts, in all and for each network. What is past
the bound is undecided where the repetition in the other memory layout, the yardstick, is as far
off, as a replay finds out by itself. With ``--out FILE`` it may be killed and started again:
trainings that are in the file are not repeated. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors.torch import save_file

from benchmarks.train import subjects
from pouw.documents import Archive, Caps, Licence, Metric, Network, Provenance, TaskSpec
from pouw.hashing import keccak, raw_cid
from pouw.ml.brain import LABELS, brain_proposal, write_brain_set
from pouw.ml.checkpoint import CheckpointState, floating_state, read_checkpoint
from pouw.ml.deviation import Deviation, deviation, deviation_bound_ppb, is_as_far
from pouw.ml.device import describe_device, describe_software, make_repeatable, torch_device
from pouw.ml.feeding import training_sampler
from pouw.ml.learner import Learner
from pouw.ml.networks import names
from pouw.ml.requests import Engine, Precision, Record, TrainingSettings

STEPS = 50
SEGMENTS = 4
MARKS = (10, 25, 50)
SET_SEEDS = (2019, 2020)
PATCHES = {2: (64, 64), 3: (32, 32, 16)}
CAPS = Caps(model_bytes=1 << 27, parameters=30_000_000, activation_bytes=1 << 32)
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
UNETS = {"unet-2d-group": 2, "unet-2d-instance": 2, "unet-3d-group": 3}
OTHERS = {
    "dynunet-2d-instance": "dynunet, 2D",
    "segresnet-2d-group": "segresnet, 2D",
    "fcn34-2d-batch": "fcn34, 2D",
    "unet3d-paper-3d-batch": "unet3d-paper, 3D",
}
ATTACKS = ("other order", "other data", "half the steps", "splice", "straight line")
HONEST: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "2 threads": ({}, {"threads": 2}),
    "ATen AVX2": ({"ATEN_CPU_CAPABILITY": "avx2"}, {}),
    "ATen default": ({"ATEN_CPU_CAPABILITY": "default"}, {}),
    "ATen and oneDNN AVX2": ({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}, {}),
    "oneDNN without AMX": ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, {}),
}
YARDSTICK = "channels last"


class Run(Record):
    """One segment, from step ``begin`` on; ``stride`` 2 leaves every second step out."""

    spec: TaskSpec
    data: Path
    seed: str
    engine: Engine
    start: Path | None
    begin: int
    out: Path
    stride: int = 1

    def train(self) -> None:
        """Write a checkpoint beside ``out`` at every mark, its step in its name."""
        make_repeatable(torch_device(self.engine), self.engine.threads)
        word, settings = bytes.fromhex(self.seed), TrainingSettings()
        learner = Learner(self.spec, word, settings, self.engine)
        if self.start is not None:
            learner.load(self.start)
        sampler = training_sampler(self.spec, self.data, word, settings)
        for offset in range(0, STEPS, self.stride):
            step = self.begin + offset
            learner.step([sampler.batch(step)], step * 1_000_000 // (STEPS * SEGMENTS))
            if offset + self.stride in MARKS:
                end = step + self.stride
                path = self.out.with_name(f"{self.out.name}-{end}")
                learner.save(self.out.with_name("model"), path, CheckpointState(end, 0, (), "", ""))


class Measured(Record):
    """How far the end of the segment from ``begin`` on is off after so many steps.

    ``kind`` is a row of the table.
    """

    training: str
    kind: str
    precision: Precision
    begin: int
    steps: int
    ppb: int
    layer: str

    @property
    def accepted(self) -> bool:
        """Whether it counts as the same training."""
        return self.ppb <= deviation_bound_ppb(self.steps)

    def told(self) -> str:
        """It as a line for people."""
        off = f"{self.ppb / 1e9:.2e} {self.layer}"
        return f"{self.training} {self.kind}, {self.steps} steps from {self.begin}: {off}"


class Stage:
    """One network, precision and seed: its honest training, repetitions and forgeries."""

    def __init__(self, folder: Path, spec: TaskSpec, data: tuple[Path, Path], run: Run) -> None:
        self._folder, self._spec, self._data, self._run = folder, spec, data, run
        self._network = Learner(
            spec, bytes.fromhex(run.seed), TrainingSettings(), run.engine
        ).network
        folder.mkdir(parents=True)

    def measure(self) -> Iterator[Measured]:
        """Every repetition and forgery of every segment, at every mark."""
        other = keccak(bytes.fromhex(self._run.seed)).hex()
        begins = range(0, STEPS * SEGMENTS, STEPS)
        for begin in begins:
            self._segment("mine", begin).train()
            self._segment("theirs", begin, chain="theirs", seed=other).train()
        yardstick: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
            YARDSTICK: ({}, {"channels_last": True})
        }
        for kind, (environment, changes) in (HONEST | yardstick).items():
            engine = self._run.engine.model_copy(update=changes)
            runs = [self._segment("again", begin, engine=engine) for begin in begins]
            _elsewhere(runs, environment)
            for begin in begins:
                yield from self._off(kind, begin, "again", "mine")
        for begin in begins:
            self._segment("order", begin, seed=other).train()
            self._segment("data", begin, data=self._data[1]).train()
            self._segment("half", begin, stride=2).train()
            yield from self._off("other order", begin, "mine", "order")
            yield from self._off("other data", begin, "mine", "data")
            yield from self._off("half the steps", begin, "mine", "half")
            yield from self._off("splice", begin, "mine", "theirs")
        yield self._line(begins[1], begins[-1])

    def _segment(self, name: str, begin: int, chain: str = "mine", **changes: Any) -> Run:
        update = {"begin": begin, "start": self._start(chain, begin), "out": self._folder / name}
        return self._run.model_copy(update={**update, **changes})

    def _start(self, chain: str, begin: int) -> Path | None:
        return self._folder / f"{chain}-{begin}" if begin else None

    def _state(self, name: str, step: int) -> dict[str, torch.Tensor]:
        if step == 0:
            weights = floating_state(self._network)
            kinds = ("network", "average")
            return {f"{kind}/{key}": one for kind in kinds for key, one in weights.items()}
        return read_checkpoint(self._folder / f"{name}-{step}", self._network)[0]

    def _off(self, kind: str, begin: int, repeated: str, claimed: str) -> Iterator[Measured]:
        start = self._state("mine", begin)
        for mark in MARKS:
            if kind == "half the steps" and mark % 2:
                continue
            ends = [self._state(name, begin + mark) for name in (repeated, claimed)]
            found = deviation(start, ends[0], ends[1])
            yield self._measured(kind, begin, mark, found)

    def _measured(self, kind: str, begin: int, steps: int, found: Deviation) -> Measured:
        return Measured(
            training=self._folder.name,
            kind=kind,
            precision=self._run.engine.precision,
            begin=begin,
            steps=steps,
            ppb=found.ppb,
            layer=found.layer,
        )

    def _line(self, first: int, last: int) -> Measured:
        """Checkpoints between two real ones put on a straight line: a segment of those."""
        one, two = self._state("mine", first), self._state("mine", last)
        begin, end = (
            {name: torch.lerp(one[name], two[name], at) for name in one} for at in (1 / 3, 2 / 3)
        )
        start = self._folder / f"line-{first}"
        metadata = {"step": str(first), "loss_ppm": "0", "previous": "", "previous_sha256": ""}
        save_file({**begin, "schedule_ppm": torch.zeros(0)}, start, metadata)
        self._segment("line", first, chain="line").train()
        found = deviation(begin, self._state("line", first + STEPS), end)
        return self._measured("straight line", first, STEPS, found)


def _elsewhere(runs: list[Run], environment: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "benchmarks.provenance", "--runs"],
        input="".join(run.line() + "\n" for run in runs),
        text=True,
        check=True,
        # Two threads that wait without spinning: other work on the machine then costs little.
        env={**os.environ, "OMP_WAIT_POLICY": "passive", **environment},
    )


def networks() -> dict[str, Network]:
    """What is trained, by name: small, with every kind of normalisation that the registry has."""
    found = {
        name: _normalised(brain_proposal(dims).network, name.rpartition("-")[2])
        for name, dims in UNETS.items()
    }
    known = {subject.title: subject.network for subject in subjects()}
    found |= {
        name: _normalised(known[title], name.rpartition("-")[2]) for name, title in OTHERS.items()
    }
    assert {network.name for network in found.values()} == set(names())
    return found


def _normalised(network: Network, norm: str) -> Network:
    arguments = {**network.arguments, "norm": norm}
    if norm != "group":
        arguments.pop("groups", None)
    return network.model_copy(update={"arguments": arguments})


def brain_spec(dims: int, network: Network) -> TaskSpec:
    """The demo's task with small patches; its archives are folders: their CIDs stand for none."""
    proposal = brain_proposal(dims)
    archive = Archive(cid=raw_cid(bytes(32)), bytes=1, cases=1)
    return TaskSpec(
        title="Brain tissue",
        modality="T1 MRI",
        spatial_dims=2 if dims == 2 else 3,
        channels=("T1",),
        labels=LABELS,
        network=network,
        inference=proposal.inference.model_copy(update={"patch": PATCHES[dims]}),
        metric=Metric(name="dice", empty_class="one"),
        training_seconds=60,
        provenance=Provenance(policy="replay", segment_steps=STEPS),
        train=archive,
        test=archive,
        caps=CAPS,
        licence=Licence(name="ICBM 152", citation="Fonov et al. 2009"),
        data_becomes_public=True,
    )


def measure(folder: Path, out: Path, seeds: int) -> list[Measured]:
    """All measurements, those in ``out`` included, with a progress bar."""
    data = {dims: tuple(folder / f"data-{dims}-{seed}" for seed in SET_SEEDS) for dims in (2, 3)}
    for dims, folders in data.items():
        for path, seed in zip(folders, SET_SEEDS, strict=True):
            write_brain_set(path, dims, seed)
    plans = [
        (name, network, precision, seed)
        for seed in range(seeds)
        for precision in PRECISIONS
        for name, network in networks().items()
    ]
    found = [Measured.parse(line) for line in out.read_bytes().splitlines()] if out.exists() else []
    for name, network, precision, seed in track(plans, "train, repeat, forge"):
        dims = 3 if "-3d-" in name else 2
        place, spec = folder / f"{name}-{precision}-{seed}", brain_spec(dims, network)
        if any(one.training == place.name for one in found):
            continue
        run = Run(
            spec=spec,
            data=data[dims][0],
            seed=keccak(str(seed).encode()).hex(),
            engine=Engine(device="cpu", precision=precision),
            start=None,
            begin=0,
            out=place,
        )
        here = []
        for one in Stage(place, spec, (data[dims][0], data[dims][1]), run).measure():
            here.append(one)
            print(one.told(), flush=True)
        with out.open("a", encoding="utf-8") as file:
            file.write("".join(one.line() + "\n" for one in here))
        found += here
        shutil.rmtree(place)
    return found


def summary(found: list[Measured]) -> dict[str, Any]:
    """False-reject and attack-accept rates by precision and steps, with sample sizes."""
    report: dict[str, Any] = {}
    for precision in PRECISIONS:
        for steps in MARKS:
            here = [one for one in found if (one.precision, one.steps) == (precision, steps)]
            if here:
                report[f"{precision}, {steps} steps"] = rates(here, steps)
    return report


def rates(found: list[Measured], steps: int) -> dict[str, Any]:
    """The figures of those measurements, all after ``steps``."""
    honest = [one for one in found if one.kind in HONEST]
    forged = [one for one in found if one.kind in ATTACKS]
    own = {(one.training, one.begin): one.ppb for one in found if one.kind == YARDSTICK}

    def undecided(one: Measured) -> bool:
        return not one.accepted and is_as_far(one.ppb, own[one.training, one.begin])

    def ratios(some: list[Measured]) -> list[float]:
        past = [one for one in some if not one.accepted]
        return [one.ppb / max(own[one.training, one.begin], 1) for one in past]

    return {
        "bound": deviation_bound_ppb(steps) / 1e9,
        "honest": len(honest),
        "honest_exact": sum(one.ppb == 0 for one in honest),
        "honest_max": max(one.ppb for one in honest) / 1e9,
        "honest_past_bound": sum(not one.accepted for one in honest),
        "honest_past_bound_to_yardstick_max": round(max(ratios(honest), default=0), 2),
        "false_rejects": sum(not one.accepted and not undecided(one) for one in honest),
        "yardstick_max": max(own.values()) / 1e9,
        "forged": len(forged),
        "forged_min": min(one.ppb for one in forged) / 1e9,
        "forged_to_yardstick_min": round(min(ratios(forged), default=0), 2),
        "attacks_accepted": sum(one.accepted for one in forged),
        "attacks_undecided": sum(undecided(one) for one in forged),
    }


def by_training(found: list[Measured]) -> dict[str, Any]:
    """The figures of each network and precision, over all its seeds, after 50 steps."""
    groups: dict[str, list[Measured]] = {}
    for one in found:
        if one.steps == STEPS:
            groups.setdefault(one.training.rpartition("-")[0], []).append(one)
    return {name: rates(group, STEPS) for name, group in groups.items()}


def main() -> None:
    """Measure, print a table, end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of every network")
    parser.add_argument("--out", type=Path, help="file to go on from (default: none)")
    parser.add_argument("--runs", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.runs:
        for line in sys.stdin:
            Run.parse(line).train()
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.out or Path(folder) / "out.jsonl", options.seeds)
    for kind in (*HONEST, YARDSTICK, *ATTACKS):
        for precision in PRECISIONS:
            ppb = [one.ppb for one in found if (one.kind, one.precision) == (kind, precision)]
            if not ppb:
                continue
            low, high = min(ppb) / 1e9, max(ppb) / 1e9
            print(f"{kind:24} {precision:9} n={len(ppb):3}  {low:.2e} to {high:.2e}")
    document = {
        "benchmark": "provenance",
        "software": describe_software(),
        "device": describe_device(torch.device("cpu"), 1),
        "rates": summary(found),
        "trainings": by_training(found),
    }
    print(json.dumps(document, sort_keys=True))


if __name__ == "__main__":
    main()
