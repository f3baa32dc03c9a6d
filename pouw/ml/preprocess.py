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

MAX_PREPARED_BYTES: Final = 1 << 30  # of an image, as of a decoded one
_VOXEL_BYTES: Final = 4


def normalise(image: Image, recipe: InferenceRecipe) -> Image:
    """``image`` (C, X, Y, Z) with the intensities of each channel normalised.

    ``zscore``: mean 0 and standard deviation 1 over the volume; ``zscore-nonzero``: the same over
    voxels other than 0, which stay 0; ``window``: by the recipe's windows, the same for every case
    (nnU-Net's CTNormalization); ``none``: as stored. A constant channel becomes 0 by z-score.
    """
    if recipe.normalisation == "none":
        return np.ascontiguousarray(image, dtype=np.float32)
    if recipe.normalisation == "window":
        return _windowed(image, recipe)
    result = np.zeros(image.shape, dtype=np.float32)
    for channel, out in zip(image, result, strict=True):
        wide = channel.astype(np.float64)
        seen = wide != 0 if recipe.normalisation == "zscore-nonzero" else np.ones(wide.shape, bool)
        voxels = wide[seen]
        deviation = float(voxels.std()) if voxels.size else 0.0
        if deviation > 0.0:
            out[seen] = (voxels - voxels.mean()) / deviation
    return result


def _windowed(image: Image, recipe: InferenceRecipe) -> Image:
    result = np.empty(image.shape, dtype=np.float32)
    for channel, window, out in zip(image, recipe.windows, result, strict=True):
        lower, upper = window.lower_milli / 1000, window.upper_milli / 1000
        wide = np.clip(channel.astype(np.float64), lower, upper)
        out[...] = (wide - window.mean_milli / 1000) / (window.deviation_milli / 1000)
    return result


def resampled_shape(shape: Shape, spacing_um: Shape, target_um: Shape, channels: int = 1) -> Shape:
    """How many voxels of ``target_um`` cover what ``shape`` voxels of ``spacing_um`` do.

    Each axis is rounded to the nearest count, at least 1; DataError where an image of so many
    ``channels`` would be too large, then or on the way there, axis by axis.
    """
    sizes = tuple(
        max(1, (2 * size * old + new) // (2 * new))
        for size, old, new in zip(shape, spacing_um, target_um, strict=True)
    )
    largest = max(math.prod((*sizes[:axis], *shape[axis:])) for axis in range(4))
    if largest * channels * _VOXEL_BYTES > MAX_PREPARED_BYTES:
        raise DataError(
            f"{channels} channel(s) of {shape} voxels of {spacing_um} um become {sizes} at "
            f"{target_um} um: more than {MAX_PREPARED_BYTES} bytes, then or on the way",
            hint="choose a coarser spacing_um in the inference recipe",
        )
    return sizes[0], sizes[1], sizes[2]


def resample_image(image: Image, shape: Shape) -> Image:
    """``image`` (C, X, Y, Z) on a grid of ``shape`` over the same field of view.

    Voxel centres are aligned by extent. Linear between voxels where an axis becomes finer; where it
    becomes coarser, a triangle as wide as two new voxels, so that what the coarse grid cannot show
    is averaged instead of aliased (as PIL's and torch's ``antialias=True``).
    """
    result: Image = image
    for axis, size in enumerate(shape, start=1):
        if size != image.shape[axis]:
            result = _along(result, axis, size)
    return np.ascontiguousarray(result, dtype=np.float32)


def _along(image: Image, axis: int, size: int) -> Image:
    """One axis; voxel by voxel of the kernel, so that sums have the same order everywhere."""
    form = [1] * image.ndim
    form[axis] = size
    sizes = list(image.shape)
    sizes[axis] = size
    result = np.zeros(sizes, dtype=np.float32)
    for index, weight in _taps(image.shape[axis], size):
        taken = image.take(index, axis=axis)
        taken *= weight.astype(np.float32).reshape(form)
        result += taken
    return result


def _taps(old: int, new: int) -> list[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """For each tap of the kernel: which of ``old`` voxels every one of ``new`` takes, and how much.

    Weights of a new voxel sum to 1; what would lie beyond the edge counts as nothing.
    """
    reach = max(1.0, old / new)
    centres = (np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5
    first = np.ceil(centres - reach).astype(np.intp)
    indices = first + np.arange(int(2 * reach) + 1)[:, np.newaxis]
    weights = np.maximum(0.0, 1.0 - np.abs(indices - centres) / reach)
    weights[(indices < 0) | (indices >= old)] = 0.0
    weights /= weights.sum(axis=0)
    return list(zip(np.clip(indices, 0, old - 1), weights, strict=True))


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
