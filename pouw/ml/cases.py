"""One case from files to arrays: image float32 (C, X, Y, Z), label uint8 (X, Y, Z)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pouw.errors import DataError
from pouw.ml.layout import CaseFile
from pouw.ml.nifti import MAX_CHANNELS, MAX_DECODED_BYTES, read_header, read_voxels
from pouw.ml.preprocess import Image, Label


@dataclass(frozen=True, slots=True)
class Case:
    """One decoded case: image float32 (C, X, Y, Z), label uint8 (X, Y, Z) or None."""

    name: str
    image: Image
    label: Label | None
    spacing_um: tuple[int, int, int]


def load_case(file: CaseFile, labels: int) -> Case:
    """The case in ``file`` whose label values are below ``labels``.

    DataError, naming the file, where an image is damaged, unbounded or not finite, the channels
    and the label disagree in shape, or a value is no label.
    """
    image, spacing_um = load_image(file)
    return Case(file.name, image, _load_label(file, image, labels), spacing_um)


def load_image(file: CaseFile) -> tuple[Image, tuple[int, int, int]]:
    """The image (C, X, Y, Z) of the NIfTI files of a case, and its spacing in micrometres.

    DataError, naming the file, where one is damaged, unbounded, not finite or on another grid.
    """
    headers = [read_header(path) for path in file.images]
    first = headers[0]
    channels = sum(header.shape[3] if len(header.shape) == 4 else 1 for header in headers)
    voxels = int(np.prod(first.shape[:3], dtype=np.int64))
    if channels > MAX_CHANNELS or channels * voxels * 4 > MAX_DECODED_BYTES:
        raise DataError(
            f"{file.images[0]}: {channels} channels of {first.shape[:3]} voxels are too many"
        )
    image = np.empty((channels, *first.shape[:3]), dtype=np.float32)
    filled = 0
    for path in file.images:
        header, stored = read_voxels(path)
        if (header.shape[:3], header.spacing_um) != (first.shape[:3], first.spacing_um):
            raise DataError(f"{path}: grid differs from that of {file.images[0].name}")
        stored = stored.reshape((*header.shape[:3], -1))
        with np.errstate(over="ignore"):
            image[filled : filled + stored.shape[3]] = np.moveaxis(stored, 3, 0)
        filled += stored.shape[3]
    if not np.isfinite(image).all():
        raise DataError(f"{file.images[0]}: values beyond float32")
    return image, first.spacing_um


def _load_label(file: CaseFile, image: Image, labels: int) -> Label | None:
    if file.label is None:
        return None
    shape = read_header(file.label).shape
    if shape != image.shape[1:]:
        raise DataError(f"{file.label}: shape {shape}, its image has {image.shape[1:]}")
    _, stored = read_voxels(file.label)
    low, high = float(stored.min()), float(stored.max())
    if low < 0 or high >= labels:
        raise DataError(f"{file.label}: labels {low:g} to {high:g}, {labels} are named")
    label = stored.astype(np.uint8)
    if stored.dtype.kind == "f" and (label != stored).any():
        raise DataError(f"{file.label}: labels that are not integers")
    return label
