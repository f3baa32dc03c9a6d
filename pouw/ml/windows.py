"""Sliding windows over a stream of planes: weigh, add up, take the highest label, let go.

The stream runs along the first spatial axis: slices of a 2D network (an axis its windows have no
extent in), or planes of a 3D one. Windows and weights are those of MONAI's sliding window: dense,
the last of an axis shifted back to its end, Gaussian of an eighth of the window. Sums are compared
as they are; dividing by the sum of weights, the same for all labels, changes no maximum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from monai.data.utils import compute_importance_map
from numpy.typing import NDArray
from torch import nn

from pouw.documents import InferenceRecipe, TaskSpec
from pouw.errors import ModelError
from pouw.types import SCORE_ONE_PPM

_SIGMA_SCALE = 0.125


@dataclass(frozen=True, slots=True)
class _Layout:
    """Window ``extent`` and starts by axis of the padded stream; ``margin`` planes of padding."""

    extent: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    padded: tuple[int, ...]
    margin: tuple[int, ...]


def stream_length(shape: tuple[int, ...], spec: TaskSpec) -> int:
    """How many windows a stream of ``shape`` (planes, and two axes within) takes."""
    return math.prod(len(starts) for starts in _layout(shape, spec.inference).starts)


@torch.inference_mode()
def labelled_planes(
    network: nn.Module, image: NDArray[np.float32], spec: TaskSpec, together: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(start, labels of the planes from there) of an image (C, planes, ., .), ascending.

    At most ``together`` windows go through the network at once. ModelError where its output is not
    finite or has another shape than its window.
    """
    flat = spec.spatial_dims == 2
    layout = _layout(image.shape[1:], spec.inference)
    device = next(network.parameters()).device
    source = torch.from_numpy(_padded(image, layout)).to(device)
    weights = _weights(layout, spec.inference, flat=flat).to(device)
    sums = _Sums(len(spec.labels), layout, device)
    windows = itertools.product(*layout.starts)
    batch = list(itertools.islice(windows, together))
    while batch:
        places = [_slices(start, layout.extent) for start in batch]
        views = [source[(slice(None), *place)] for place in places]
        inputs = torch.stack([view.squeeze(1) if flat else view for view in views])
        outputs = network(inputs).float()
        if outputs.shape != (len(batch), len(spec.labels), *inputs.shape[2:]):
            raise ModelError(f"the network's output has the shape {tuple(outputs.shape)}")
        for place, output in zip(places, outputs, strict=True):
            sums.add(place, output.unsqueeze(1) if flat else output, weights)
        batch = list(itertools.islice(windows, together))
        final = batch[0][0] if batch else layout.padded[0]
        labels = sums.take(final)
        if labels is not None:
            yield from _cropped(*labels, layout, image.shape[1:])


class _Sums:
    """Weighted sums of outputs (labels, planes, ., .), from the first plane not let go yet."""

    def __init__(self, labels: int, layout: _Layout, device: torch.device) -> None:
        self._shape = (labels, 0, *layout.padded[1:])
        self._sums = torch.zeros(self._shape, device=device)
        self._first = 0
        # A stream of single windows has nothing to blend.
        self._alone = all(len(starts) == 1 for starts in layout.starts[1:]) and (
            layout.extent[0] == 1 or len(layout.starts[0]) == 1
        )

    def add(self, place: tuple[slice, ...], output: torch.Tensor, weights: torch.Tensor) -> None:
        missing = place[0].stop - self._first - self._sums.shape[1]
        if missing > 0:
            shape = (self._shape[0], missing, *self._shape[2:])
            self._sums = torch.cat([self._sums, self._sums.new_zeros(shape)], dim=1)
        planes = slice(place[0].start - self._first, place[0].stop - self._first)
        target = self._sums[(slice(None), planes, *place[1:])]
        if self._alone:
            target.copy_(output)
        else:
            target.addcmul_(output, weights)

    def take(self, final: int) -> tuple[int, NDArray[np.uint8]] | None:
        """The labels of the planes before ``final``, which are let go; None where there is none."""
        count, first = final - self._first, self._first
        if count <= 0:
            return None
        done, self._sums = self._sums[:, :count], self._sums[:, count:].clone()
        self._first = final
        # Whatever is not finite makes the sum so; a sum that overflows on its own does not count.
        if not bool(done.sum().isfinite()) and not bool(done.isfinite().all()):
            raise ModelError("the network's output is not finite")
        return first, highest_label(done).cpu().numpy()


def highest_label(sums: torch.Tensor) -> torch.Tensor:
    """The label (uint8) of the highest of ``sums`` (labels, ...), all finite; ties: the lowest.

    What ``argmax`` over the first axis gives, many times as fast on a CPU.
    """
    best = sums[0].clone()
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for label in range(1, len(sums)):
        labels.masked_fill_(sums[label] > best, label)
        torch.maximum(best, sums[label], out=best)
    return labels


def _layout(shape: tuple[int, ...], recipe: InferenceRecipe) -> _Layout:
    extent = recipe.patch if len(recipe.patch) == len(shape) else (1, *recipe.patch)
    padded = tuple(max(size, window) for size, window in zip(shape, extent, strict=True))
    margin = tuple((whole - size) // 2 for whole, size in zip(padded, shape, strict=True))
    starts = tuple(
        _starts(size, window, recipe.overlap_ppm)
        for size, window in zip(padded, extent, strict=True)
    )
    return _Layout(extent, starts, padded, margin)


def _starts(size: int, window: int, overlap_ppm: int) -> tuple[int, ...]:
    step = max(1, int(window * (1 - overlap_ppm / SCORE_ONE_PPM)))
    count = -(-(size - window) // step) + 1
    return tuple(min(place * step, size - window) for place in range(count))


def _padded(image: NDArray[np.float32], layout: _Layout) -> NDArray[np.float32]:
    if image.shape[1:] == layout.padded:
        return np.ascontiguousarray(image, dtype=np.float32)
    around = [
        (before, whole - size - before)
        for before, whole, size in zip(layout.margin, layout.padded, image.shape[1:], strict=True)
    ]
    return np.pad(np.asarray(image, dtype=np.float32), [(0, 0), *around])


def _weights(layout: _Layout, recipe: InferenceRecipe, *, flat: bool) -> torch.Tensor:
    window = layout.extent[1:] if flat else layout.extent
    weights = compute_importance_map(window, mode=recipe.blending, sigma_scale=_SIGMA_SCALE)
    return weights.unsqueeze(0) if flat else weights


def _slices(start: tuple[int, ...], extent: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(first, first + size) for first, size in zip(start, extent, strict=True))


def _cropped(
    first: int, labels: NDArray[np.uint8], layout: _Layout, shape: tuple[int, ...]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The part of the planes that is image, not padding."""
    begin, end = layout.margin[0], layout.margin[0] + shape[0]
    start, stop = max(first, begin), min(first + len(labels), end)
    if start < stop:
        within = tuple(
            slice(before, before + size)
            for before, size in zip(layout.margin[1:], shape[1:], strict=True)
        )
        yield start - begin, labels[(slice(start - first, stop - first), *within)]
