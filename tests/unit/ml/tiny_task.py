"""A task small enough to be learnt in seconds: bright and dark boxes in noise."""

from __future__ import annotations

import json
import time
from pathlib import Path

import nibabel
import numpy as np

from pouw.documents import (
    Archive,
    Caps,
    InferenceRecipe,
    Licence,
    Metric,
    Network,
    Provenance,
    TaskSpec,
)
from pouw.hashing import raw_cid
from pouw.ml.requests import Engine, TrainingRequest, TrainingSettings

SEED = "0x" + "5a" * 32
SHAPE = (24, 20, 8)


def tiny_spec(spatial_dims: int = 2, **changes: object) -> TaskSpec:
    """A spec with a U-Net of a few thousand parameters."""
    archive = Archive(cid=raw_cid(bytes(32)), bytes=1, cases=1)
    spec = TaskSpec(
        title="Boxes",
        modality="none",
        spatial_dims=spatial_dims,
        channels=("grey",),
        labels=("background", "bright", "dark"),
        network=Network(
            name="unet",
            arguments={
                "spatial_dims": spatial_dims,
                "channels": (8, 16),
                "strides": (2,),
                "num_res_units": 0,
                "norm": "group",
                "groups": 4,
            },
        ),
        inference=InferenceRecipe(
            spacing_um=(),
            normalisation="zscore",
            patch=(16, 16) if spatial_dims == 2 else (16, 16, 8),
            overlap_ppm=250_000,
            blending="gaussian",
            dtype="float32",
            ties="lowest-label",
        ),
        metric=Metric(name="dice", empty_class="one"),
        training_seconds=5,
        provenance=Provenance(policy="manifest"),
        train=archive,
        test=archive,
        caps=Caps(model_bytes=1 << 20, parameters=100_000, activation_bytes=1 << 26),
        licence=Licence(name="CC0", citation="none"),
        data_becomes_public=True,
    )
    return spec.model_copy(update=changes)


def write_case(root: Path, part: str, name: str, random: np.random.Generator) -> None:
    """One case with one bright and one dark box."""
    label = np.zeros(SHAPE, dtype=np.uint8)
    image = random.normal(0.0, 0.2, SHAPE)
    for value, level in ((1, 2.0), (2, -2.0)):
        x, y = random.integers(0, (SHAPE[0] - 9, SHAPE[1] - 9))
        label[x : x + 9, y : y + 9, 1:7] = value
        image[x : x + 9, y : y + 9, 1:7] = random.normal(level, 0.2, (9, 9, 6))
    for folder, suffix, voxels in (
        (f"images{part}", "_0000", np.rint(image * 1000).astype(np.int16)),
        (f"labels{part}", "", label),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        nibabel.save(
            nibabel.Nifti1Image(voxels, np.eye(4)), root / folder / f"{name}{suffix}.nii.gz"
        )


def write_tiny_set(root: Path, train: int = 4, test: int = 2) -> Path:
    """A data set in nnU-Net layout below ``root``."""
    random = np.random.Generator(np.random.Philox(3))
    for index in range(train):
        write_case(root, "Tr", f"train{index}", random)
    for index in range(test):
        write_case(root, "Ts", f"test{index}", random)
    document = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "bright": 1, "dark": 2},
        "numTraining": train,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    return root


def tiny_request(data: Path, out: Path, **changes: object) -> TrainingRequest:
    """A training by steps, with minutes to spare."""
    request = TrainingRequest(
        spec=tiny_spec(),
        data=data,
        out=out,
        seed=SEED,
        stop_at_ms=int(time.time() * 1000) + 300_000,
        max_steps=12,
        engine=Engine(device="cpu"),
        settings=TrainingSettings(batch_size=2, learning_rate_ppm=10_000),
    )
    return request.model_copy(update=changes)
