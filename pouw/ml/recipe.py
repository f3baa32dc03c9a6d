"""A task's network, recipe and caps, planned from the fingerprint of its data. No torch.

The rules are nnU-Net's (Isensee et al., Nature Methods 2021), for the budget of a round on
ordinary machines instead of a GPU's memory: a target spacing from the median one, normalisation by
modality, a patch that keeps to the image and to a number of voxels, layers that follow the spacing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pouw.documents import Argument, Caps, InferenceRecipe, Network
from pouw.errors import DataError
from pouw.ml.arguments import check_caps, check_patch, names
from pouw.ml.fingerprint import Fingerprint
from pouw.ml.layout import Dataset
from pouw.ml.topology import plan_topology

Spacing = tuple[int, ...]
Normalisation = Literal["zscore", "zscore-nonzero", "window", "none"]

_STRIDE: Final = 8  # of the U-Nets of four levels
_PATCH_VOXELS: Final = {2: 256 * 256, 3: 64 * 64 * 64}
_SPACING_RATIO: Final = 1.1
_ANISOTROPIC: Final = 3
_SPARSE: Final = 0.75
_WIDTHS: Final = {2: (16, 32, 64, 64), 3: (8, 16, 32, 64)}
_DYNUNET_FILTERS: Final = {2: (16, 32, 64, 128, 128), 3: (8, 16, 32, 64, 128)}
_GROUPS: Final = 4
_MODEL_BYTES: Final = 256 << 20
_PARAMETERS: Final = 50_000_000
_ACTIVATION_BYTES: Final = 1 << 30
_CHECKPOINTS_BYTES: Final = 16 << 30
_COLOURS: Final = ("red", "green", "blue")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a TaskSpec says about how to segment: network, inference recipe, caps."""

    network: Network
    inference: InferenceRecipe
    caps: Caps


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a publisher decides itself; None: planned.

    ``modality`` "CT" asks for nnU-Net's CT normalisation, as a channel of that name does.
    """

    spatial_dims: int | None = None
    network: str | None = None
    modality: str | None = None


def propose(dataset: Dataset, fingerprint: Fingerprint, wishes: Wishes | None = None) -> Proposal:
    """A network, an inference recipe and caps that suit the cases of ``dataset``.

    2D where images are flat, else 3D; nnU-Net's anisotropic topology (``dynunet``) where voxels are
    three times as long on one axis as on another, else a plain U-Net. DataError for a network that
    the registry has not or that cannot have these dimensions.
    """
    wishes = wishes or Wishes()
    dims = wishes.spatial_dims or (2 if fingerprint.median_shape[2] == 1 else 3)
    if dims not in _WIDTHS:
        raise DataError(f"networks are 2D or 3D, not {dims}D")
    spacing_um = target_spacing(fingerprint, dims)
    voxel_um = (spacing_um or fingerprint.median_spacing_um)[:dims]
    sizes = median_size(fingerprint, spacing_um)[:dims]
    name = wishes.network or ("dynunet" if _is_anisotropic(voxel_um) else "unet")
    network, patch = _network(name, dims, sizes, voxel_um)
    kind = normalisation(dataset, fingerprint, wishes.modality)
    channels, labels = len(dataset.channels), len(dataset.labels)
    bound = check_patch(network, labels, patch).activation_bound(channels, labels, patch)
    # Room for two windows at once, and for networks that a publisher widens by hand.
    caps = Caps(
        model_bytes=_MODEL_BYTES,
        parameters=_PARAMETERS,
        activation_bytes=max(2 * bound, _ACTIVATION_BYTES),
        checkpoints_bytes=_CHECKPOINTS_BYTES,
    )
    check_caps(network, channels, labels, patch, caps)
    return Proposal(
        network,
        InferenceRecipe(
            spacing_um=spacing_um,
            normalisation=kind,
            windows=fingerprint.windows if kind == "window" else (),
            patch=patch,
            overlap_ppm=250_000,
            blending="gaussian",
            dtype="float32",
            ties="lowest-label",
        ),
        caps,
    )


def target_spacing(fingerprint: Fingerprint, dims: int) -> Spacing:
    """Micrometres a voxel to resample to, of X, Y and Z; empty: as stored.

    nnU-Net's target: the median, but of an axis that is three times as coarse as the others the
    10th percentile. Where cases differ by no more than a tenth nothing is resampled, and in 2D what
    lies between slices does not count.
    """
    axes = list(zip(*fingerprint.spacings_um, strict=True))
    if all(max(axis) <= _SPACING_RATIO * min(axis) for axis in axes[:dims]):
        return ()
    target = list(fingerprint.median_spacing_um)
    coarse = max(range(3), key=lambda axis: target[axis])
    others = [target[axis] for axis in range(3) if axis != coarse]
    if target[coarse] >= _ANISOTROPIC * max(others):
        ordered = sorted(axes[coarse])
        target[coarse] = max(ordered[(len(ordered) - 1) // 10], *others)
    return tuple(target)


def median_size(fingerprint: Fingerprint, spacing_um: Spacing) -> tuple[int, ...]:
    """The median image in voxels at that spacing (nnU-Net: ``median_image_size_in_voxels``)."""
    if not spacing_um:
        return fingerprint.median_shape
    return tuple(
        max(
            1,
            round(
                statistics.median(
                    shape[axis] * spacing[axis] / spacing_um[axis]
                    for shape, spacing in zip(
                        fingerprint.shapes, fingerprint.spacings_um, strict=True
                    )
                )
            ),
        )
        for axis in range(3)
    )


def normalisation(
    dataset: Dataset, fingerprint: Fingerprint, modality: str | None
) -> Normalisation:
    """How intensities become comparable (nnU-Net: ``normalization_schemes``).

    CT has one scale for all patients: clipped to where the foreground lies. Everything else is
    z-scored by case and channel; over what is not 0 alone where most images are empty around it
    (``use_mask_for_norm``).
    """
    ct = all(name.upper() == "CT" for name in dataset.channels) or (modality or "").upper() == "CT"
    if ct and fingerprint.windows:
        return "window"
    sparse = fingerprint.filled < _SPARSE and dataset.channels != _COLOURS
    return "zscore-nonzero" if sparse else "zscore"


def fit_patch(
    sizes: Sequence[int], voxel_um: Sequence[int], divisors: Sequence[int], voxels: int
) -> tuple[int, ...]:
    """A patch that covers the median image, or as near a cube as ``voxels`` allow.

    The longest axis in micrometres is cut by its divisor until the patch is small enough.
    """
    patch = [
        -(-max(size, 1) // divisor) * divisor for size, divisor in zip(sizes, divisors, strict=True)
    ]
    while math.prod(patch) > voxels:
        cuttable = [axis for axis in range(len(patch)) if patch[axis] > divisors[axis]]
        if not cuttable:
            break
        longest = max(cuttable, key=lambda axis: patch[axis] * voxel_um[axis])
        patch[longest] -= divisors[longest]
    return tuple(patch)


def _is_anisotropic(voxel_um: Sequence[int]) -> bool:
    return max(voxel_um) >= _ANISOTROPIC * min(voxel_um)


def _network(
    name: str, dims: int, sizes: Sequence[int], voxel_um: Sequence[int]
) -> tuple[Network, tuple[int, ...]]:
    """The named network for images of that size, and the patch that it is run on."""
    voxels = _PATCH_VOXELS[dims]
    divisors: tuple[int, ...] = (_STRIDE,) * dims
    if name == "unet":
        network = small_unet(dims, _WIDTHS[dims])
    elif name == "dynunet":
        rough = fit_patch(sizes, voxel_um, (1,) * dims, voxels)
        network, divisors = _dynunet(dims, rough, voxel_um)
    elif name == "segresnet":
        shape: dict[str, Argument] = {"blocks_down": (1, 2, 2, 4), "blocks_up": (1, 1, 1)}
        network = _made(
            name, spatial_dims=dims, init_filters=8, norm="group", groups=_GROUPS, **shape
        )
    elif (name, dims) == ("fcn34", 2):
        divisors = (16, 16)
        network = _made(name, width=16, norm="batch")
    elif (name, dims) == ("unet3d-paper", 3):
        network = _made(name, width=8, norm="batch")
    else:
        known = ", ".join(names())
        raise DataError(
            f"no {dims}D network {name!r}", hint=f"{known}; fcn34 is 2D, unet3d-paper 3D"
        )
    patch = fit_patch(sizes, voxel_um, divisors, voxels)
    if patch == divisors:  # other norms than the group norm need more than one site at the bottom
        patch = (2 * patch[0], *patch[1:])
    return network, patch


def _dynunet(
    dims: int, patch: Sequence[int], voxel_um: Sequence[int]
) -> tuple[Network, tuple[int, ...]]:
    """nnU-Net's topology for about that patch, and what the patch must be multiples of."""
    filters = _DYNUNET_FILTERS[dims]
    topology = plan_topology(patch, voxel_um, len(filters))
    # MONAI's needs three levels; small images get theirs without pooling.
    missing = max(0, 3 - len(topology.kernels))
    kernels = (*topology.kernels, *topology.kernels[-1:] * missing)
    strides = (*topology.strides, *((1,) * dims,) * missing)
    network = _made(
        "dynunet",
        spatial_dims=dims,
        filters=filters[: len(kernels)],
        kernels=sum(kernels, ()),
        strides=sum(strides, ()),
        residual=False,
        norm="group",
        groups=_GROUPS,
    )
    return network, topology.divisors


def _made(name: str, **arguments: Argument) -> Network:
    return Network(name=name, arguments=arguments)


def small_unet(spatial_dims: int, channels: tuple[int, ...]) -> Network:
    """A plain U-Net with group norm that halves the image at every level but the last."""
    return _made(
        "unet",
        spatial_dims=spatial_dims,
        channels=channels,
        strides=(2,) * (len(channels) - 1),
        num_res_units=0,
        norm="group",
        groups=_GROUPS,
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
