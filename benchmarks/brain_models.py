"""Small networks really trained on the built-in brain set, for benchmarks that score models."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pouw.documents import (
    Archive,
    Caps,
    Licence,
    Metric,
    Network,
    Provenance,
    TaskSpec,
)
from pouw.hashing import raw_cid, sha256
from pouw.ml.brain import write_brain_set
from pouw.ml.checkpoint import save_model
from pouw.ml.feeding import training_sampler
from pouw.ml.learner import Learner
from pouw.ml.recipe import recipe, small_unet
from pouw.ml.requests import Engine, TrainingSettings
from pouw.types import SCORE_ONE_PPM

PATCHES: Final[dict[int, tuple[int, ...]]] = {2: (96, 96), 3: (64, 64, 16)}
SETTINGS: Final = TrainingSettings(batch_size=2)


def brain_spec(spatial_dims: int, cases: int, network: Network | None = None) -> TaskSpec:
    """A task on the brain set with ``cases`` test cases; by default a U-Net of 30,000 weights."""
    archive = Archive(cid=raw_cid(bytes(32)), bytes=1, cases=cases)
    return TaskSpec(
        title=f"Brain tissue, {spatial_dims}D",
        modality="MRI",
        spatial_dims=spatial_dims,
        channels=("T1",),
        labels=("background", "grey matter", "white matter"),
        network=network or small_unet(spatial_dims, (8, 16, 32)),
        inference=recipe(PATCHES[spatial_dims], overlap_ppm=250_000),
        metric=Metric(name="dice", empty_class="one"),
        training_seconds=60,
        provenance=Provenance(policy="none"),
        train=archive,
        test=archive,
        caps=Caps(model_bytes=1 << 30, parameters=100_000_000, activation_bytes=1 << 30),
        licence=Licence(name="ICBM", citation="MNI ICBM152 2009a"),
        data_becomes_public=True,
    )


def brain_data(folder: Path, spatial_dims: int, seed: int) -> Path:
    """The brain set in ``folder``, written once."""
    if not (folder / "dataset.json").exists():
        write_brain_set(folder, spatial_dims, seed)
    return folder


def train(data: Path, spec: TaskSpec, seed: int, snapshots: dict[int, Path]) -> None:
    """Train once on ``data`` and save the model after each of the steps in ``snapshots``."""
    seed_bytes = sha256(f"benchmark {seed}".encode())
    sampler = training_sampler(spec, data, seed_bytes, SETTINGS)
    learner = Learner(spec, seed_bytes, SETTINGS, Engine(device="cpu"))
    last = max(snapshots)
    for step in range(last):
        learner.step([sampler.batch(step)], step * SCORE_ONE_PPM // last)
        if step + 1 in snapshots:
            save_model(snapshots[step + 1], learner.model)
