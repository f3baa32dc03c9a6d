"""A model applied to images that nobody has labelled: one NIfTI label map a case."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import nibabel
import numpy as np

from pouw.documents import TaskSpec
from pouw.errors import DataError
from pouw.files import atomic_file
from pouw.ml.cases import Case, load_image
from pouw.ml.checkpoint import load_model
from pouw.ml.device import choose_device
from pouw.ml.inference import predict_case
from pouw.ml.layout import CaseFile
from pouw.ml.readers.rasters import ENDINGS, read_pixels

_NIFTI: Final = (".nii.gz", ".nii")
_CHANNEL: Final = re.compile(r"(.+)_(\d{4})")


def images_in(folder: Path, channels: int) -> list[CaseFile]:
    """The cases of a folder: one file each, or nnU-Net's NAME_0000.nii.gz, one a channel.

    DataError where a channel is missing, a case is there twice, or there is none.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        ending = next((end for end in (*_NIFTI, *ENDINGS) if path.name.lower().endswith(end)), "")
        if path.name.startswith(".") or not ending:
            continue
        name = path.name[: -len(ending)]
        match = _CHANNEL.fullmatch(name) if ending in _NIFTI else None
        # A frame or a slice has such a number too.
        split = match is not None and int(match[2]) < channels
        name, number = (match[1], int(match[2])) if match and split else (name, 0)
        if found.setdefault(name, {}).setdefault(number, path) != path:
            raise DataError(f"{path}: {found[name][number].name} is the same case")
        if split and number and number - 1 not in found[name]:
            raise DataError(f"{path}: {name} has no channel {number - 1}")
    if not found:
        raise DataError(
            f"{folder}: no image", hint=f"{', '.join((*_NIFTI, *ENDINGS))} are read, one a case"
        )
    return [CaseFile(name, tuple(parts.values()), None) for name, parts in found.items()]


def predict_images(model: Path, spec: TaskSpec, cases: list[CaseFile], out: Path) -> Iterator[Path]:
    """Write each case's label map (X, Y, Z) to ``out``, on the grid of its image; its path.

    ModelError where the model is not one of the spec's network, DataError where an image cannot be
    used or has not its channels.
    """
    channels, labels = len(spec.channels), len(spec.labels)
    network = load_model(model, spec.network, channels, labels, spec.caps).to(choose_device("auto"))
    for file in cases:
        case, affine = _read(file)
        image = nibabel.Nifti1Image(predict_case(network, case, spec), affine)  # type: ignore[no-untyped-call]
        path = out / f"{file.name}.nii.gz"
        with atomic_file(path) as written:
            written.write(gzip.compress(image.to_bytes(), mtime=0))
        yield path


def _read(file: CaseFile) -> tuple[Case, object]:
    first = file.images[0]
    if first.name.lower().endswith(_NIFTI):
        image, spacing_um = load_image(file)
        return Case(file.name, image, None, spacing_um), nibabel.load(first).affine  # type: ignore[attr-defined]
    image = read_pixels(first).astype(np.float32)
    return Case(file.name, image, None, (1000, 1000, 1000)), np.eye(4)
