"""From an image to labels: one fixed recipe in float32, whoever runs it.

Everything that influences a number follows from the spec and the shape of the image: windows,
their weights, and how many windows go through the network at once. Labels come in slabs, each as
soon as no later window can change it, so that memory stays bounded and a scorer can stop early.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from pouw.documents import InferenceRecipe, TaskSpec
from pouw.errors import DataError, ModelTooLarge
from pouw.ml.data import (
    Case,
    Image,
    Label,
    normalise,
    resample_image,
    resample_label,
    resampled_shape,
)
from pouw.ml.networks import activation_bytes
from pouw.ml.preprocess import nearest
from pouw.ml.windows import labelled_planes, stream_length

_MAX_WINDOWS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Slab:
    """Final labels (X, Y, Z) of the planes ``start`` to ``stop`` along ``axis``, and all else."""

    axis: int
    start: int
    stop: int
    labels: Label

    @property
    def where(self) -> tuple[slice, ...]:
        """The place of the slab in the whole image."""
        return (slice(None),) * self.axis + (slice(self.start, self.stop),)


def prepare(case: Case, spec: TaskSpec) -> Image:
    """The case's image (C, X, Y, Z) as a network sees it: normalised, then resampled.

    DataError where it has not the channels of the spec.
    """
    if case.image.shape[0] != len(spec.channels):
        raise DataError(
            f"case {case.name} has {case.image.shape[0]} channel(s), the spec {len(spec.channels)}"
        )
    image = normalise(case.image, spec.inference)
    if not spec.inference.spacing_um:
        return image
    return resample_image(image, _target_shape(case, spec.inference))


def prepare_label(case: Case, spec: TaskSpec) -> Label:
    """The case's label (X, Y, Z) on the grid of ``prepare``; DataError where it has none."""
    if case.label is None:
        raise DataError(f"case {case.name} has no label")
    if not spec.inference.spacing_um:
        return case.label
    return resample_label(case.label, _target_shape(case, spec.inference))


def _target_shape(case: Case, recipe: InferenceRecipe) -> tuple[int, int, int]:
    channels, x, y, z = case.image.shape
    spacing = recipe.spacing_um
    target = spacing[0], spacing[1], spacing[2]
    return resampled_shape((x, y, z), case.spacing_um, target, channels)


def windows_at_once(spec: TaskSpec) -> int:
    """How many windows go through the network together, within the spec's activation cap.

    ModelTooLarge where a single one passes it.
    """
    single = activation_bytes(
        spec.network, len(spec.channels), len(spec.labels), spec.inference.patch
    )
    if single > spec.caps.activation_bytes:
        raise ModelTooLarge(
            f"one window takes {single} bytes of activations, "
            f"the task allows {spec.caps.activation_bytes}"
        )
    return min(spec.caps.activation_bytes // single, _MAX_WINDOWS_AT_ONCE)


def predict(network: nn.Module, image: Image, spec: TaskSpec) -> Label:
    """Labels (X, Y, Z) of a prepared image (C, X, Y, Z), on its own grid.

    Overlapping windows are blended and ties go to the lowest label; an image smaller than a window
    is padded with zeros around it. Runs where the network is. ModelError where the network's output
    is not finite, ModelTooLarge where a window passes the caps.
    """
    labels = np.empty(image.shape[1:], dtype=np.uint8)
    for slab in predict_slabs(network, image, spec):
        labels[slab.where] = slab.labels
    return labels


def predict_slabs(network: nn.Module, image: Image, spec: TaskSpec) -> Iterator[Slab]:
    """``predict`` bit by bit: slabs along Z for a 2D network, along X for a 3D one, ascending."""
    together = windows_at_once(spec)
    axis = stream_axis(spec)
    moved = np.moveaxis(image, -1, 1) if spec.spatial_dims == 2 else image
    for start, labels in labelled_planes(network, moved, spec, together):
        slab = np.moveaxis(labels, 0, -1) if spec.spatial_dims == 2 else labels
        yield Slab(axis, start, start + len(labels), np.ascontiguousarray(slab))


def stream_axis(spec: TaskSpec) -> int:
    """The axis of (X, Y, Z) along which slabs come."""
    return 2 if spec.spatial_dims == 2 else 0


def predict_stored(
    network: nn.Module, image: Image, spec: TaskSpec, shape: tuple[int, int, int]
) -> Iterator[Slab]:
    """``predict_slabs`` on the grid of ``shape`` that the case is stored on, by nearest voxel."""
    grid = image.shape[1:]
    index = [nearest(old, new) for old, new in zip(grid, shape, strict=True)]
    for slab in predict_slabs(network, image, spec):
        along = index[slab.axis]
        start, stop = (int(place) for place in np.searchsorted(along, (slab.start, slab.stop)))
        labels = slab.labels
        for axis, new in enumerate(shape):
            if axis == slab.axis:
                labels = labels.take(along[start:stop] - slab.start, axis=axis)
            elif grid[axis] != new:
                labels = labels.take(index[axis], axis=axis)
        yield Slab(slab.axis, start, stop, labels)


def predict_case(network: nn.Module, case: Case, spec: TaskSpec) -> Label:
    """Labels (X, Y, Z) of a case on the grid it is stored on; errors as in ``predict``."""
    _, x, y, z = case.image.shape
    labels = np.empty((x, y, z), dtype=np.uint8)
    for slab in predict_stored(network, prepare(case, spec), spec, (x, y, z)):
        labels[slab.where] = slab.labels
    return labels


def window_count(shape: tuple[int, ...], spec: TaskSpec) -> int:
    """How many windows a prepared image of ``shape`` (X, Y, Z) takes."""
    moved = (shape[2], shape[0], shape[1]) if spec.spatial_dims == 2 else shape
    return stream_length(moved, spec)
