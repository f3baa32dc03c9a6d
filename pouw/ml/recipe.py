"""Sensible defaults for a task, from the headers of its data. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pouw.documents import Caps, InferenceRecipe, Network
from pouw.errors import DataError
from pouw.ml.arguments import activation_bound, check_patch
from pouw.ml.layout import Dataset
from pouw.ml.nifti import Header, read_header

Spacing = tuple[int, int, int]

_HEADERS: Final = 32
_STRIDE: Final = 8
_LARGEST_PATCH: Final = {2: 256, 3: 96}
_SPACING_RATIO: Final = 1.1
_CHANNELS: Final = {2: (16, 32, 64, 64), 3: (8, 16, 32, 64)}
_MODEL_BYTES: Final = 256 << 20
_PARAMETERS: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a TaskSpec says about how to segment: network, inference recipe, caps."""

    network: Network
    inference: InferenceRecipe
    caps: Caps


def propose(dataset: Dataset, spatial_dims: int) -> Proposal:
    """A small U-Net and a recipe that suit the cases of ``dataset``, in 2 or 3 dimensions.

    The patch covers the median image where that is small, in multiples of the network's stride;
    voxels are resampled to the median spacing only where cases differ by more than a tenth. At most
    32 headers, evenly spread, are read. DataError where one cannot be, or for other dimensions.
    """
    if spatial_dims not in _CHANNELS:
        raise DataError(f"networks are 2D or 3D, not {spatial_dims}D")
    headers = _sampled_headers(dataset)
    spacing_um = _common_spacing(headers)
    sizes = [_size_at(header, spacing_um) for header in headers]
    patch = tuple(
        _patch_axis(round(statistics.median(size[axis] for size in sizes)), spatial_dims)
        for axis in range(spatial_dims)
    )
    network = small_unet(spatial_dims, _CHANNELS[spatial_dims])
    labels = len(dataset.labels)
    arguments = check_patch(network, labels, patch)
    activation_bytes = activation_bound(arguments, len(dataset.channels), labels, patch)
    return Proposal(
        network,
        recipe(patch, overlap_ppm=250_000, spacing_um=spacing_um),
        # Room for two windows at once, and for networks that a publisher widens by hand.
        Caps(
            model_bytes=_MODEL_BYTES,
            parameters=_PARAMETERS,
            activation_bytes=max(2 * activation_bytes, 1 << 30),
        ),
    )


def small_unet(spatial_dims: int, channels: tuple[int, ...]) -> Network:
    """A plain U-Net with group norm that halves the image at every level but the last."""
    return Network(
        name="unet",
        arguments={
            "spatial_dims": spatial_dims,
            "channels": channels,
            "strides": (2,) * (len(channels) - 1),
            "num_res_units": 0,
            "norm": "group",
            "groups": 4,
        },
    )


def recipe(
    patch: tuple[int, ...], *, overlap_ppm: int, spacing_um: tuple[int, ...] = ()
) -> InferenceRecipe:
    """Z-scored volumes, windows of ``patch`` blended by Gaussian weights."""
    return InferenceRecipe(
        spacing_um=spacing_um,
        normalisation="zscore",
        patch=patch,
        overlap_ppm=overlap_ppm,
        blending="gaussian",
        dtype="float32",
        ties="lowest-label",
    )


def _sampled_headers(dataset: Dataset) -> list[Header]:
    cases = dataset.train or dataset.test
    step = -(-len(cases) // _HEADERS)
    return [read_header(case.images[0]) for case in cases[::step]]


def _common_spacing(headers: Sequence[Header]) -> tuple[int, ...]:
    """The median spacing where cases differ by more than a tenth, else empty: as stored."""
    axes = [[header.spacing_um[axis] for header in headers] for axis in range(3)]
    if all(max(axis) <= _SPACING_RATIO * min(axis) for axis in axes):
        return ()
    return tuple(round(statistics.median(axis)) for axis in axes)


def _size_at(header: Header, spacing_um: tuple[int, ...]) -> tuple[float, ...]:
    size = header.shape[:3]
    if not spacing_um:
        return tuple(float(count) for count in size)
    return tuple(
        count * old / new
        for count, old, new in zip(size, header.spacing_um, spacing_um, strict=True)
    )


def _patch_axis(size: int, spatial_dims: int) -> int:
    """``size`` rounded up to the stride, within what is cheap to train on."""
    return min(-(-max(size, 1) // _STRIDE) * _STRIDE, _LARGEST_PATCH[spatial_dims])
