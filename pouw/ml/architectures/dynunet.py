"""``dynunet``: MONAI's DynUNet, the topology that nnU-Net plans (Isensee et al., 2021).

Kernels and strides differ by axis where voxels do; there is no deep supervision, since a model is
its last output alone.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pouw.ml.architectures.base import Architecture, Outputs, Width, convolution, scaled

Kernels = Annotated[tuple[Literal[1, 3], ...], Field(min_length=6, max_length=24)]
Strides = Annotated[tuple[Literal[1, 2], ...], Field(min_length=6, max_length=24)]


class DynUnetArguments(Architecture):
    """``filters`` a level; ``kernels`` and ``strides`` a level and axis, one level after another.

    As nnU-Net's ``conv_kernel_sizes`` and ``pool_op_kernel_sizes``; the first level has stride 1.
    """

    spatial_dims: Literal[2, 3]
    filters: Annotated[tuple[Width, ...], Field(min_length=3, max_length=8)]
    kernels: Kernels
    strides: Strides
    residual: bool

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        wanted = len(self.filters) * self.spatial_dims
        if len(self.kernels) != wanted or len(self.strides) != wanted:
            raise ValueError(f"kernels and strides have {wanted} entries: one a level and axis")
        if any(stride != 1 for stride in self.rows(self.strides)[0]):
            raise ValueError("the first level has stride 1 on every axis")
        return self

    def rows(self, entries: tuple[int, ...]) -> list[tuple[int, ...]]:
        """``entries`` (kernels or strides) by level."""
        size = self.spatial_dims
        return [entries[start : start + size] for start in range(0, len(entries), size)]

    @property
    def dims(self) -> int:
        """2 or 3."""
        return self.spatial_dims

    @property
    def divisors(self) -> tuple[int, ...]:
        """The product of the strides of each axis."""
        return tuple(math.prod(axis) for axis in zip(*self.rows(self.strides), strict=True))

    def normalised(self) -> tuple[int, ...]:
        """The filters of every level."""
        return self.filters

    def parameters(self, channels: int, labels: int) -> int:
        """Convolutions without bias, norms with scale and shift, the last convolution with bias."""
        total, inputs = 0, channels
        kernels, strides = self.rows(self.kernels), self.rows(self.strides)
        for kernel, stride, width in zip(kernels, strides, self.filters, strict=True):
            total += _block(kernel, inputs, width)
            if self.residual and (inputs != width or max(stride) > 1):
                total += inputs * width + 2 * width
            inputs = width
        pairs = zip(self.filters, self.filters[1:], strides[1:], kernels[1:], strict=False)
        for width, below, stride, kernel in pairs:
            total += convolution(stride, below, width, bias=False)
            total += _block(kernel, 2 * width, width)
        return total + convolution(scaled(1, self.dims), self.filters[0], labels, bias=True)

    def outputs(self, channels: int, labels: int) -> Outputs:
        """Blocks of two convolutions down and up, transposed convolutions, what is joined."""
        block = 9 if self.residual else 6
        factors = scaled(1, self.dims)
        yield factors, channels + labels
        last = len(self.filters) - 1
        for level, (width, stride) in enumerate(
            zip(self.filters, self.rows(self.strides), strict=True)
        ):
            factors = tuple(a * b for a, b in zip(factors, stride, strict=True))
            # Up: the transposed convolution, the skip beside it, and a plain block.
            yield factors, (block + (3 + 6 if level < last else 0)) * width


def _block(kernel: tuple[int, ...], inputs: int, width: int) -> int:
    """Two convolutions, each with a norm of scale and shift."""
    first = convolution(kernel, inputs, width, bias=False)
    return first + convolution(kernel, width, width, bias=False) + 4 * width
