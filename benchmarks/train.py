"""A training step as miners take it against eager float32, for every network of the registry.

``python -m benchmarks.train`` lets the trial choose an engine for each network, as a miner does
before Phase 1. Steps of the chosen learner, in a process such as a miner starts, and of a plain
loop, in one of its own, are taken by turns: the same batches, MONAI's loss, AdamW, gradient
clipping and averaged weights, as torch has them out of the box. The fastest of the steps counts, in
processor time where there is one thread: a busy machine only ever adds. ``--compile`` lets the
trial compile as well. The last line is one line of JSON; exit code 1 where a chosen step is slower.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from monai.losses.dice import DiceCELoss
from rich.console import Console
from rich.table import Table

from benchmarks.sides import Side, answer, fastest_of
from pouw.documents import (
    Archive,
    Argument,
    Caps,
    Licence,
    Metric,
    Network,
    Provenance,
    TaskSpec,
)
from pouw.hashing import raw_cid
from pouw.ml.augment import shaded
from pouw.ml.autotune import step_clock, synthetic_sampler, tune
from pouw.ml.device import describe_device, describe_software, make_repeatable, torch_device
from pouw.ml.learner import Learner
from pouw.ml.networks import build, names
from pouw.ml.recipe import recipe, small_unet
from pouw.ml.requests import Engine, Tuned, TuningRequest
from pouw.ml.sampling import Batch
from pouw.ml.training import now_ms
from pouw.types import SCORE_ONE_PPM

SEED: Final = bytes(32)
CHANNELS, LABELS = ("t1",), ("background", "grey", "white")
# Timing two equal programs on a shared machine differs by this much.
NOISE: Final = 1.03
GROUP: Final[dict[str, Argument]] = {"norm": "group", "groups": 4}
DYNUNET: Final[dict[str, Argument]] = {"residual": False, **GROUP}
SEGRESNET: Final[dict[str, Argument]] = {
    "init_filters": 8,
    "blocks_down": (1, 2, 2, 4),
    "blocks_up": (1, 1, 1),
    **GROUP,
}


@dataclass(frozen=True)
class Subject:
    """A network on the patch it is trained on."""

    title: str
    network: Network
    patch: tuple[int, ...]


def subjects() -> list[Subject]:
    """Every network of the registry, in 2D and 3D where it has both."""
    flat, deep = (96, 96), (64, 64, 16)
    found = [
        Subject("unet, 2D", small_unet(2, (16, 32, 64, 64)), flat),
        Subject("unet, 3D", small_unet(3, (8, 16, 32, 64)), deep),
        Subject("fcn34, 2D", Network(name="fcn34", arguments={"width": 16, "norm": "batch"}), flat),
        Subject(
            "unet3d-paper, 3D",
            Network(name="unet3d-paper", arguments={"width": 8, "norm": "batch"}),
            deep,
        ),
    ]
    for dims, patch in ((2, flat), (3, deep)):
        levels: dict[str, Argument] = {
            "spatial_dims": dims,
            "filters": (16, 32, 64, 128),
            "kernels": (3,) * 4 * dims,
            "strides": (1,) * dims + (2,) * 3 * dims,
        }
        dynunet = Network(name="dynunet", arguments={**levels, **DYNUNET})
        segresnet = Network(name="segresnet", arguments={"spatial_dims": dims, **SEGRESNET})
        found.append(Subject(f"dynunet, {dims}D", dynunet, patch))
        found.append(Subject(f"segresnet, {dims}D", segresnet, patch))
    assert {one.network.name for one in found} == set(names())
    return sorted(found, key=lambda one: one.title)


def spec_of(subject: Subject) -> TaskSpec:
    """A task of that network."""
    archive = Archive(cid=raw_cid(bytes(32)), bytes=1, cases=1)
    return TaskSpec(
        title=subject.title,
        modality="MRI",
        spatial_dims=2 if len(subject.patch) == 2 else 3,
        channels=CHANNELS,
        labels=LABELS,
        network=subject.network,
        inference=recipe(subject.patch, overlap_ppm=250_000),
        metric=Metric(name="dice", empty_class="one"),
        training_seconds=600,
        provenance=Provenance(policy="none"),
        train=archive,
        test=archive,
        caps=Caps(model_bytes=1 << 30, parameters=100_000_000, activation_bytes=1 << 34),
        licence=Licence(name="CC0", citation="none"),
        data_becomes_public=True,
    )


def plain_step(request: TuningRequest) -> Callable[[Batch], float]:
    """Eager float32, written with what torch and MONAI offer."""
    spec, settings = request.spec, request.settings
    torch.manual_seed(0)
    network = build(
        spec.network, len(CHANNELS), len(LABELS), parameters_cap=spec.caps.parameters
    ).to(torch_device(request.engine))
    network.train()
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    device = next(network.parameters()).device

    def step(batch: Batch) -> float:
        images = shaded(
            torch.from_numpy(batch.images).to(device),
            batch,
            settings.intensity_ppm / SCORE_ONE_PPM,
        )
        optimiser.zero_grad()
        loss = criterion(network(images), torch.from_numpy(batch.labels).to(device).long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        with torch.no_grad():
            for mean, weights in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weights, 0.01)
        return float(loss.detach())

    return step


def side(which: str, title: str, asked: Engine) -> int:
    """Steps of one side on the network ``title``; ``ours`` first says what its trial chose."""
    (subject,) = [one for one in subjects() if one.title == title]
    make_repeatable(torch_device(asked), asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        request = TuningRequest(
            spec=spec_of(subject),
            engine=asked,
            out=Path(folder) / "engine.json",
            stop_at_ms=int(now_ms()) + 3_600_000,
        )
        sampler = synthetic_sampler(request)
        if which == "plain":
            plain = plain_step(request)
            return answer({}, lambda number: plain(sampler.batch(number)), step_clock(asked))
        tuned = tune(request, now_ms)
        learner = Learner(request.spec, SEED, request.settings, tuned.engine)
        return answer(
            tuned.model_dump(mode="json"),
            lambda number: learner.step([sampler.batch(number)], 0),
            step_clock(tuned.engine),
        )


def compare(title: str, asked: Engine, rounds: int) -> tuple[Tuned, float, float]:
    """What the trial chose, and the fastest (chosen, plain) step in seconds, taken by turns."""
    common = ["--only", title, "--threads", str(asked.threads)]
    common += ["--compile"] if asked.compiled else []
    with (
        Side(
            "benchmarks.train", [*common, "--side", "ours"], ours=True, threads=asked.threads
        ) as our,
        Side("benchmarks.train", [*common, "--side", "plain"], ours=False, threads=1) as plain,
    ):
        chosen, eager = fastest_of([our, plain], rounds, unmeasured=2)
        return Tuned.model_validate_json(json.dumps(our.ready)), chosen, eager


def main() -> int:
    """Compare and print; 1 where a chosen step is slower than eager float32."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", default="", help="networks whose title contains this")
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    # MONAI's loss warns of a batch of one channel; the plain loop shares it with the learner.
    warnings.simplefilter("ignore")
    asked = Engine(threads=arguments.threads, compiled=arguments.compile)
    if arguments.side:
        return side(arguments.side, arguments.only, asked)
    device = describe_device(torch_device(asked), arguments.threads)
    table = Table("network", "patch", "eager float32", "chosen", "times", "bfloat16 / eager")
    lines, slower = [], 0
    console = Console()
    with console.status("trying") as status:
        for subject in subjects():
            if arguments.only not in subject.title:
                continue
            status.update(subject.title)
            tuned, chosen, plain = compare(subject.title, asked, arguments.rounds)
            ratio = plain / chosen
            slower += chosen > plain * NOISE
            engine = tuned.engine
            how = f"{engine.precision}{', channels last' if engine.channels_last else ''}"
            how += ", compiled" if engine.compiled else ""
            times = [t.step_microseconds for t in tuned.trials]
            half = [
                t.step_microseconds
                for t in tuned.trials
                if t.engine.precision == "bfloat16" and t.step_microseconds
            ]
            gain = (times[0] or 0) / min(half) if half else 0.0
            table.add_row(
                subject.title,
                "x".join(map(str, subject.patch)),
                f"{plain * 1e3:.1f} ms",
                f"{chosen * 1e3:.1f} ms ({how})",
                f"{ratio:.2f}",
                f"{gain:.2f}",
            )
            lines.append(
                {
                    "network": subject.title,
                    "eager_ms": round(plain * 1e3, 2),
                    "chosen_ms": round(chosen * 1e3, 2),
                    "times": round(ratio, 2),
                    "engine": how,
                    "faults": [t.fault for t in tuned.trials if t.fault],
                }
            )
    console.print(table)
    print(
        json.dumps(
            {
                "benchmark": "train",
                "slower": slower,
                "networks": lines,
                "software": describe_software(),
                "device": device,
            }
        )
    )
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
