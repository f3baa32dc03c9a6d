"""Which layers suit voxels of which spacing: nnU-Net's rules for pooling and kernels.

After ``get_pool_and_conv_props`` of nnU-Net v2 (Isensee et al., 2021): an axis is halved as long as
its feature maps keep four voxels and its spacing stays within twice the finest one; a kernel is
three wide on an axis once the spacings there are that close.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_CLOSE: Final = 2
_FEWEST: Final = 4


@dataclass(frozen=True, slots=True)
class Topology:
    """Kernels and strides a level, one entry an axis; the first level has stride 1."""

    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def divisors(self) -> tuple[int, ...]:
        """What each axis of a patch must be a multiple of."""
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))


def plan_topology(patch: Sequence[int], spacing_um: Sequence[int], levels: int) -> Topology:
    """At most ``levels`` resolutions for patches of that size (nnU-Net: ``UNet_base_num_features``
    aside, its ``pool_op_kernel_sizes`` and ``conv_kernel_sizes``)."""
    sizes = [float(size) for size in patch]
    spacings = [float(size) for size in spacing_um]
    wide = [False] * len(sizes)
    kernels, strides = [], []
    stride = (1,) * len(sizes)
    while True:
        finest = min(spacings)
        wide = [was or space < _CLOSE * finest for was, space in zip(wide, spacings, strict=True)]
        kernels.append(tuple(3 if one else 1 for one in wide))
        strides.append(stride)
        large = [size >= 2 * _FEWEST for size in sizes]
        if len(kernels) == levels or not any(large):
            return Topology(tuple(kernels), tuple(strides))
        finest = min(space for space, one in zip(spacings, large, strict=True) if one)
        halved = [
            one and space < _CLOSE * finest for one, space in zip(large, spacings, strict=True)
        ]
        stride = tuple(2 if one else 1 for one in halved)
        sizes = [size / step for size, step in zip(sizes, stride, strict=True)]
        spacings = [space * step for space, step in zip(spacings, stride, strict=True)]
