"""``segresnet``: MONAI's SegResNet (Myronenko, BrainLes 2018) without its autoencoder.

It goes up by transposed convolutions: the gradient of linear interpolation cannot be repeated
exactly on a GPU.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pouw.ml.architectures.base import Architecture, Outputs, convolution, scaled

_Blocks = Annotated[int, Field(ge=1, le=8)]


class SegResNetArguments(Architecture):
    """``init_filters`` doubles at every level; blocks of two convolutions, down and up."""

    spatial_dims: Literal[2, 3]
    init_filters: Annotated[int, Field(ge=1, le=128)]
    blocks_down: Annotated[tuple[_Blocks, ...], Field(min_length=2, max_length=6)]
    blocks_up: Annotated[tuple[_Blocks, ...], Field(min_length=1, max_length=5)]

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError("blocks_up has one entry less than blocks_down")
        return self

    @property
    def dims(self) -> int:
        """2 or 3."""
        return self.spatial_dims

    @property
    def divisors(self) -> tuple[int, ...]:
        """Every level but the first halves every axis."""
        return scaled(2 ** len(self.blocks_up), self.spatial_dims)

    def normalised(self) -> tuple[int, ...]:
        """The first level's filters, which all others are multiples of."""
        return (self.init_filters,)

    def parameters(self, channels: int, labels: int) -> int:
        """Convolutions without bias, transposed ones and the last one with."""
        three, two, one = (scaled(size, self.dims) for size in (3, 2, 1))
        first = self.init_filters
        total = convolution(three, channels, first, bias=False)
        for level, blocks in enumerate(self.blocks_down):
            width = first << level
            total += blocks * self._block(width)
            if level:
                total += convolution(three, width // 2, width, bias=False)
        for level, blocks in enumerate(reversed(self.blocks_up)):
            width = first << level
            total += convolution(one, 2 * width, width, bias=False)
            total += convolution(two, width, width, bias=True)
            total += blocks * self._block(width)
        return total + self._norm(first) + convolution(one, first, labels, bias=True)

    def _block(self, width: int) -> int:
        kernel = scaled(3, self.dims)
        return 2 * convolution(kernel, width, width, bias=False) + 2 * self._norm(width)

    def _norm(self, width: int) -> int:
        return 2 * width

    def outputs(self, channels: int, labels: int) -> Outputs:
        """Blocks down and up, what is carried across, and the last layers."""
        first, ups = self.init_filters, tuple(reversed(self.blocks_up))
        block = 6  # two norms, two activations, two convolutions
        yield scaled(1, self.dims), channels + 3 * first + labels
        for level, blocks in enumerate(self.blocks_down):
            width, factor = first << level, 1 << level
            yield scaled(factor, self.dims), (block * blocks + 1) * width
            if level < len(ups):
                yield scaled(factor, self.dims), (block * ups[level] + 2) * width
                yield scaled(2 * factor, self.dims), width
