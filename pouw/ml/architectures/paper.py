"""``fcn34`` and ``unet3d-paper``: the two networks of the paper (Li et al., 2019, section 5)."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from pouw.ml.architectures.base import Architecture, Outputs, convolution, scaled

FCN_SCALES: Final = 5
UNET3D_STEPS: Final = 4


class Fcn34Arguments(Architecture):
    """The FCN of ``pouw.ml.fcn``; the first scale has ``width`` channels, each further one twice.

    The source is 2D with batch norm.
    """

    width: Annotated[int, Field(ge=4, le=128, multiple_of=4)]

    @property
    def dims(self) -> int:
        """2, always."""
        return 2

    @property
    def divisors(self) -> tuple[int, ...]:
        """Five scales, each half the one before."""
        return scaled(1 << (FCN_SCALES - 1), 2)

    def normalised(self) -> tuple[int, ...]:
        """The narrowest bottleneck, which all other widths are multiples of."""
        return (self.width // 4,)

    def parameters(self, channels: int, labels: int) -> int:
        """Convolutions without bias, each with a norm of scale and shift; the last with bias."""
        total = _normed(2, 3, channels, self.width)
        inputs = self.width
        for scale in range(FCN_SCALES):
            width = self.width << scale
            narrow = width // 4
            for first in (inputs, width):
                total += _normed(2, 1, first, narrow)
                total += _normed(2, 3, narrow, narrow) + _normed(2, 1, narrow, width)
            total += _normed(2, 1, inputs, width) + _normed(2, 1, width, self.width)
            inputs = width
        total += _normed(2, 3, FCN_SCALES * self.width, self.width)
        return total + convolution((1, 1), self.width, labels, bias=True)

    def outputs(self, channels: int, labels: int) -> Outputs:
        """Two bottlenecks a scale, what they send to the decoder, and the decoder."""
        first = self.width
        # The stem, every scale at full size and all of them joined, the merging layer.
        yield scaled(1, 2), channels + 3 * first + 2 * FCN_SCALES * first + 3 * first + labels
        for scale in range(FCN_SCALES):
            width = first << scale
            before = 1 << max(0, scale - 1)
            yield scaled(before, 2), 3 * (width // 4)
            yield scaled(1 << scale, 2), 10 * width + 9 * (width // 4) + 3 * first


class Unet3dPaperArguments(Architecture):
    """The 3D U-Net of ``pouw.ml.unet3d``; ``width``: channels of the very first convolution.

    32 in the source, with batch norm.
    """

    width: Annotated[int, Field(ge=1, le=64)]

    @property
    def dims(self) -> int:
        """3, always."""
        return 3

    @property
    def divisors(self) -> tuple[int, ...]:
        """Four resolution steps, each half the one before."""
        return scaled(1 << (UNET3D_STEPS - 1), 3)

    def normalised(self) -> tuple[int, ...]:
        """The first width, which all others are multiples of."""
        return (self.width,)

    def parameters(self, channels: int, labels: int) -> int:
        """Convolutions with bias and norm, transposed ones with neither, as published."""
        total, inputs = 0, channels
        for step in range(UNET3D_STEPS):
            first = self.width << step
            for before, after in ((inputs, first), (first, 2 * first)):
                total += _normed(3, 3, before, after) + after
            inputs = 2 * first
        for step in reversed(range(UNET3D_STEPS - 1)):
            below, own = self.width << (step + 2), self.width << (step + 1)
            total += convolution((2, 2, 2), below, below, bias=False)
            for before in (below + own, own):
                total += _normed(3, 3, before, own) + own
        return total + convolution((1, 1, 1), 2 * self.width, labels, bias=True)

    def outputs(self, channels: int, labels: int) -> Outputs:
        """Two convolutions with norm and activation a step, pooling, what is joined going up."""
        yield scaled(1, 3), channels + labels
        for step in range(UNET3D_STEPS):
            first, factor = self.width << step, 1 << step
            yield scaled(factor, 3), 9 * first
            if step < UNET3D_STEPS - 1:
                yield scaled(2 * factor, 3), 2 * first
                # The transposed convolution, all that is joined, two convolutions.
                yield scaled(factor, 3), 4 * first + 6 * first + 12 * first


def _normed(dims: int, kernel: int, inputs: int, outputs: int) -> int:
    """A convolution without bias and a norm with scale and shift."""
    return convolution(scaled(kernel, dims), inputs, outputs, bias=False) + 2 * outputs
