"""Chains of checkpoints, honestly trained or forged, on the tiny task."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from tiny_task import SEED, tiny_spec

from pouw.documents import Provenance, Recipe, TaskSpec
from pouw.hashing import sha256
from pouw.ml.checkpoint import CheckpointState
from pouw.ml.device import describe_device, describe_software, make_repeatable, torch_device
from pouw.ml.feeding import training_sampler
from pouw.ml.learner import Learner
from pouw.ml.replays import Link, LinkRequest, ReplayRequest
from pouw.ml.requests import Engine, TrainingSettings

EVERY = 15
LINKS = 4
STEPS = EVERY * LINKS
SPEC = tiny_spec(provenance=Provenance(policy="replay", segment_steps=EVERY, segments=2))
ENGINE = Engine(device="cpu")
SETTINGS = TrainingSettings(batch_size=2)


@dataclass(frozen=True)
class Chain:
    """Files in the order of training; ``data`` and ``seed`` are what they are checked against."""

    data: Path
    seed: str
    checkpoints: tuple[Path, ...]
    model: Path
    engine: Engine
    spec: TaskSpec = SPEC

    def link(self, index: int) -> LinkRequest:
        before = sha256(self.checkpoints[index - 1].read_bytes()).hex() if index else ""
        return LinkRequest(
            id="link",
            spec=self.spec,
            link=Link(
                path=self.checkpoints[index],
                begin_step=index * EVERY,
                step=(index + 1) * EVERY,
                previous_sha256=before,
            ),
            model=self.model if index == LINKS - 1 else None,
        )

    def segment(self, index: int, **changes: object) -> ReplayRequest:
        device = describe_device(torch_device(self.engine), self.engine.threads)
        return ReplayRequest(
            id="segment",
            spec=self.spec,
            data=self.data,
            seed=self.seed,
            recipe=self.recipe(),
            begin=self.checkpoints[index - 1] if index else None,
            begin_step=index * EVERY,
            end=self.checkpoints[index],
            end_step=(index + 1) * EVERY,
            software=describe_software(),
            device=device,
        ).model_copy(update=changes)

    def recipe(self) -> Recipe:
        return Recipe(
            engine=self.engine.model_dump(mode="json"),
            settings=SETTINGS.model_dump(mode="json"),
        )


def train(
    data: Path, out: Path, seed: str = SEED, engine: Engine = ENGINE, spec: TaskSpec = SPEC
) -> Chain:
    """A real training of ``STEPS`` steps with a checkpoint every ``EVERY``."""
    out.mkdir()
    make_repeatable(torch_device(engine), engine.threads)
    word = bytes.fromhex(seed[2:])
    learner = Learner(spec, word, SETTINGS, engine)
    sampler = training_sampler(spec, data, word, SETTINGS)
    checkpoints: list[Path] = []
    previous = ""
    schedule = [step * 1_000_000 // STEPS for step in range(STEPS)]
    for step, fraction_ppm in enumerate(schedule):
        learner.step([sampler.batch(step, rank) for rank in range(engine.processes)], fraction_ppm)
        if (step + 1) % EVERY == 0:
            path = out / f"checkpoint-{step + 1}"
            state = CheckpointState(
                step=step + 1,
                loss_ppm=0,
                schedule_ppm=tuple(schedule[step + 1 - EVERY : step + 1]),
                previous=checkpoints[-1].name if checkpoints else "",
                previous_sha256=previous,
            )
            previous = learner.save(out / "model", path, state).hex()
            checkpoints.append(path)
    return Chain(data, seed, tuple(checkpoints), out / "model", engine, spec)


def train_with_plain_kernels(data: Path, out: Path, engine: Engine, spec: TaskSpec) -> Chain:
    """The same on what stands for another machine: kernels without vector instructions."""
    script = (
        "import sys; from pathlib import Path; import chains; "
        "chains.train(Path(sys.argv[1]), Path(sys.argv[2]), "
        "engine=chains.Engine.parse(sys.argv[3]), spec=chains.TaskSpec.parse(sys.argv[4].encode()))"
    )
    plain = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    subprocess.run(
        [sys.executable, "-c", script, data, out, engine.line(), spec.encode()],
        env={**os.environ, **plain, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    steps = range(EVERY, STEPS + 1, EVERY)
    checkpoints = tuple(out / f"checkpoint-{step}" for step in steps)
    return Chain(data, SEED, checkpoints, out / "model", engine, spec)


def tensors_of(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def forge(chain: Chain, out: Path, contents: list[Mapping[str, torch.Tensor]]) -> Chain:
    """``chain`` with other tensors, every link and the final model put right again."""
    out.mkdir()
    previous = ""
    paths = []
    for path, tensors in zip(chain.checkpoints, contents, strict=True):
        honest, metadata = tensors_of(path)
        metadata["previous_sha256"] = previous
        file = out / path.name
        file.write_bytes(save({**honest, **tensors}, metadata))
        previous = sha256(file.read_bytes()).hex()
        paths.append(file)
    average = {
        name.removeprefix("average/"): tensor
        for name, tensor in {**honest, **contents[-1]}.items()
        if name.startswith("average/")
    }
    model = out / "model"
    model.write_bytes(save(average, {"format": "pt"}))
    return replace(chain, checkpoints=tuple(paths), model=model)


def spliced(mine: Chain, theirs: Chain, out: Path, at: int) -> Chain:
    """The first ``at`` checkpoints of one training, then those of another."""
    paths = (*mine.checkpoints[:at], *theirs.checkpoints[at:])
    return forge(mine, out, [_states(path) for path in paths])


def interpolated(chain: Chain, out: Path) -> Chain:
    """Checkpoints on the straight line from the first to the last: no training in between."""
    first, last = _states(chain.checkpoints[0]), _states(chain.checkpoints[-1])
    return forge(
        chain,
        out,
        [
            {name: torch.lerp(first[name], last[name], index / (LINKS - 1)) for name in first}
            for index in range(LINKS)
        ],
    )


def _states(path: Path) -> dict[str, torch.Tensor]:
    tensors, _ = tensors_of(path)
    return {name: tensor for name, tensor in tensors.items() if name != "schedule_ppm"}
