"""Small data sets in each format that readers know, cut from the brain volume of the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pouw.ml.brain import write_brain_set
from pouw.ml.data import load_case
from pouw.ml.readers.mmwhs import STRUCTURES

Slice = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@cache
def brain(folder: str) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """T1 (X, Y, Z) and labels 0 to 2 of one slab of 16 slices."""
    dataset = write_brain_set(Path(folder), 3, seed=1)
    case = load_case(dataset.train[3], 3)
    assert case.label is not None
    return case.image[0].astype(np.int16), case.label


def slices(folder: Path, count: int) -> list[Slice]:
    """Images (Y, X) of 8 bits with masks that number the pieces of white matter."""
    image, label = brain(str(folder))
    scaled = np.clip(image / image.max() * 255, 0, 255).astype(np.uint8)
    made = []
    for number in range(count):
        window = (slice(44, 108), slice(72, 120), number)
        mask = np.where(label[window] == 2, 1 + np.arange(48) // 8, 0)
        made.append((scaled[window].T.copy(), mask.T.astype(np.uint8)))
    return made


def coloured(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Three different channels (Y, X, 3)."""
    return np.stack([grey, 255 - grey, grey // 2], axis=-1)


def write_glas(root: Path, parts: list[Slice]) -> Path:
    """``train_1.bmp`` ..., the last two as ``testA_1`` and ``testB_1``."""
    root.mkdir(parents=True)
    names = [f"train_{n}" for n in range(1, len(parts) - 1)] + ["testA_1", "testB_1"]
    for name, (grey, mask) in zip(names, parts, strict=True):
        Image.fromarray(coloured(grey)).save(root / f"{name}.bmp")
        Image.fromarray(mask).save(root / f"{name}_anno.bmp")
    rows = [f"{name}, {1 + index // 2}, benign" for index, name in enumerate(names)]
    (root / "Grade.csv").write_text("\n".join(["name,patient ID,grade (GlaS)", *rows]))
    return root


def write_mmwhs(root: Path, folder: Path, modality: str = "ct", cases: int = 3) -> Path:
    """Labels of the brain as the first, third and last structures of the heart."""
    image, label = brain(str(folder))
    values = np.array([0, 205, 850], np.int16)
    root.mkdir(parents=True, exist_ok=True)
    for number in range(cases):
        name = root / f"{modality}_train_{1001 + number}"
        window = (slice(60, 92), slice(60, 92), slice(4 * number, 4 * number + 4))
        for kind, voxels in (("image", image[window]), ("label", values[label[window]])):
            nibabel.save(
                nibabel.Nifti1Image(voxels, np.diag([0.5, 0.5, 0.6, 1])),
                f"{name}_{kind}.nii.gz",
            )
    assert len(STRUCTURES) == 7
    return root


def write_masks(root: Path, parts: list[Slice], ending: str, *, colour: bool) -> Path:
    """``images/`` and ``masks/`` with files of that ending; masks of 16 bits where it can."""
    for number, (grey, mask) in enumerate(parts):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        image = coloured(grey) if colour else grey
        Image.fromarray(image).save(root / "images" / f"s{number}{ending}")
        wide = mask if ending == ".bmp" else mask.astype(np.uint16) * 1000
        Image.fromarray(wide).save(root / "masks" / f"s{number}{ending}")
    return root
