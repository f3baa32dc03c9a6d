"""``unet``: MONAI's (residual) U-Net, after Kerfoot et al., STACOM 2018."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pouw.ml.architectures.base import Architecture, Outputs, Width, convolution, scaled


class UnetArguments(Architecture):
    """``channels`` of every level, ``strides`` between them, 3-wide kernels, PReLU."""

    spatial_dims: Literal[2, 3]
    channels: Annotated[tuple[Width, ...], Field(min_length=2, max_length=8)]
    strides: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4)], ...], Field(min_length=1, max_length=7)
    ]
    num_res_units: Annotated[int, Field(ge=0, le=4)]

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError("strides has one entry less than channels")
        return self

    @property
    def dims(self) -> int:
        """2 or 3."""
        return self.spatial_dims

    @property
    def divisors(self) -> tuple[int, ...]:
        """The product of the strides, on every axis."""
        return scaled(math.prod(self.strides), self.spatial_dims)

    def normalised(self) -> tuple[int, ...]:
        """The channels of every level."""
        return self.channels

    def check_labels(self, labels: int) -> str | None:
        """With residual units the topmost normalises as many channels as there are labels."""
        if self.norm == "group" and self.num_res_units and labels % self.groups:
            return f"{labels} labels are no multiple of {self.groups} groups"
        return None

    def parameters(self, channels: int, labels: int) -> int:
        """Counted level by level, as MONAI nests them."""
        total, above, out = 0, channels, labels
        for level, (width, stride) in enumerate(zip(self.channels, self.strides, strict=False)):
            below = self.channels[level + 1]
            bottom = level == len(self.strides) - 1
            total += self._down(above, width, stride)
            if bottom:
                total += self._down(width, below, 1)
            total += self._up(width + (below if bottom else width), out, top=level == 0)
            above = out = width
        return total

    def _unit(self, inputs: int, outputs: int) -> int:
        # MONAI's instance norm has no parameters by default; PReLU has one.
        norm = 0 if self.norm == "instance" else 2 * outputs
        return self._convolution(inputs, outputs) + norm + 1

    def _convolution(self, inputs: int, outputs: int, kernel: int = 3) -> int:
        return convolution(scaled(kernel, self.dims), inputs, outputs, bias=True)

    def _down(self, inputs: int, outputs: int, stride: int) -> int:
        if not self.num_res_units:
            return self._unit(inputs, outputs)
        total = self._unit(inputs, outputs) + (self.num_res_units - 1) * self._unit(
            outputs, outputs
        )
        if stride != 1 or inputs != outputs:
            total += self._convolution(inputs, outputs, 1 if stride == 1 else 3)
        return total

    def _up(self, inputs: int, outputs: int, *, top: bool) -> int:
        if not self.num_res_units:
            return self._convolution(inputs, outputs) if top else self._unit(inputs, outputs)
        second = self._convolution(outputs, outputs) if top else self._unit(outputs, outputs)
        return self._unit(inputs, outputs) + second

    def outputs(self, channels: int, labels: int) -> Outputs:
        """Every convolution, norm, dropout and activation; residual sums; skip connections."""
        units = self.num_res_units
        unit = 4  # convolution, norm, dropout, activation
        down = unit * max(1, units) + 2  # and the residual's convolution and sum
        up = unit + (unit + 2 if units else 0)
        factor, above = 1, labels
        yield scaled(1, self.dims), channels
        for level, width in enumerate(self.channels):
            if level < len(self.strides):
                yield scaled(factor, self.dims), up * above
                factor *= self.strides[level]
            below = self.channels[min(level + 1, len(self.channels) - 1)]
            # Down to this level, and the skip connection beside what comes from below.
            yield scaled(factor, self.dims), down * width + width + max(width, below)
            above = width
