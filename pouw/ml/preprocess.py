"""What happens to an image before a network sees it: intensities, then voxel spacing.

Images are float32 (C, X, Y, Z), labels uint8 (X, Y, Z). Everything is plain numpy in a fixed order
of operations, so that a miner and every oracle feed the same numbers.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pouw.documents import InferenceRecipe
from pouw.errors import DataError

Image = NDArray[np.float32]
Label = NDArray[np.uint8]
Shape = tuple[int, int, int]

MAX_RESAMPLED_VOXELS: Final = 1 << 28


def normalise(image: Image, recipe: InferenceRecipe) -> Image:
    """``image`` (C, X, Y, Z) with the intensities of each channel normalised over its volume.

    ``zscore``: mean 0 and standard deviation 1; ``zscore-nonzero``: the same over voxels other
    than 0, which stay 0; ``none``: as stored. A constant channel becomes 0.
    """
    if recipe.normalisation == "none":
        return np.ascontiguousarray(image, dtype=np.float32)
    result = np.zeros(image.shape, dtype=np.float32)
    for channel, out in zip(image, result, strict=True):
        wide = channel.astype(np.float64)
        seen = wide != 0 if recipe.normalisation == "zscore-nonzero" else np.ones(wide.shape, bool)
        voxels = wide[seen]
        deviation = float(voxels.std()) if voxels.size else 0.0
        if deviation > 0.0:
            out[seen] = (voxels - voxels.mean()) / deviation
    return result


def resampled_shape(shape: Shape, spacing_um: Shape, target_um: Shape) -> Shape:
    """How many voxels of ``target_um`` cover what ``shape`` voxels of ``spacing_um`` do.

    Each axis is rounded to the nearest count, at least 1; DataError where the result is too large.
    """
    sizes = tuple(
        max(1, (2 * size * old + new) // (2 * new))
        for size, old, new in zip(shape, spacing_um, target_um, strict=True)
    )
    if math.prod(sizes) > MAX_RESAMPLED_VOXELS:
        raise DataError(
            f"{shape} voxels of {spacing_um} um become {sizes} at {target_um} um",
            hint="choose a coarser spacing_um in the inference recipe",
        )
    return sizes[0], sizes[1], sizes[2]


def resample_image(image: Image, shape: Shape) -> Image:
    """``image`` (C, X, Y, Z) on a grid of ``shape`` over the same field of view, linearly.

    Voxel centres are aligned by extent; beyond the outermost centres the edge value holds.
    """
    result: Image = image
    for axis, size in enumerate(shape, start=1):
        if size != image.shape[axis]:
            result = _linear(result, axis, size)
    return np.ascontiguousarray(result, dtype=np.float32)


def _linear(image: Image, axis: int, size: int) -> Image:
    positions = _positions(image.shape[axis], size)
    lower = np.floor(positions).astype(np.intp)
    upper = np.minimum(lower + 1, image.shape[axis] - 1)
    form = [1] * image.ndim
    form[axis] = size
    weight = (positions - lower).astype(np.float32).reshape(form)
    low, high = image.take(lower, axis=axis), image.take(upper, axis=axis)
    return np.asarray(low + (high - low) * weight, dtype=np.float32)


def _positions(old: int, new: int) -> NDArray[np.float64]:
    """Centres of ``new`` voxels in the index space of ``old`` ones, within the old centres."""
    centres = (np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5
    return np.clip(centres, 0.0, float(old - 1))


def resample_label(label: Label, shape: Shape) -> Label:
    """``label`` (X, Y, Z) on a grid of ``shape`` over the same field of view, by nearest voxel.

    Also brings a prediction back to the stored grid.
    """
    result: NDArray[Any] = label
    for axis, size in enumerate(shape):
        if size != label.shape[axis]:
            result = result.take(nearest(label.shape[axis], size), axis=axis)
    return np.ascontiguousarray(result, dtype=np.uint8)


def nearest(old: int, new: int) -> NDArray[np.intp]:
    """For each of ``new`` voxels, which of ``old`` ones holds its centre; it never descends."""
    # In integers: (2i + 1) * old / (2 * new).
    return (2 * np.arange(new, dtype=np.intp) + 1) * old // (2 * new)
