"""Faster forms, for a CPU, of what networks are built of, with the values of torch's own."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_BATCH_NORM_BACKWARD: Final = torch.ops.aten.native_batch_norm_backward.default
# Columns that torch's batch normalisation takes at once at full speed.
_COLUMNS: Final = 256
# Channels of a group from which on torch's own group normalisation is vectorised.
_WIDE_GROUP: Final = 16
# From so many channels and pixels on its forward pass is.
_FAST_CHANNELS: Final = 16
_FAST_PIXELS: Final = 1024
# Numbers below which the calls cost more than they save.
_LEAST_NUMBERS: Final = 1 << 16


def laid_out(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """A copy of ``tensor`` whose strides say that layout, also where one channel leaves it open.

    torch chooses the layout of a convolution by strides alone, and ``contiguous`` leaves those of
    an image of one channel, or of a kernel of one point, as they are: from there on all is slow.
    """
    return torch.empty_like(tensor, memory_format=layout).copy_(tensor)


def quicken(network: nn.Module, layout: torch.memory_format) -> None:
    """Replace layers in place by faster ones; names, parameters and values stay.

    That is every PReLU of one slope and, where channels lie last, group and instance
    normalisation; gradients of activations are then kept in that layout.
    """
    channels_last = layout != torch.contiguous_format
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.PReLU and child.num_parameters == 1:
                setattr(parent, name, SharedPReLU(child.weight))
            elif channels_last and type(child) is nn.GroupNorm:
                norm = ChannelsLastNorm(child.weight, child.bias, child.num_groups, child.eps)
                setattr(parent, name, norm)
            elif channels_last and isinstance(child, nn.InstanceNorm2d | nn.InstanceNorm3d):
                norm = ChannelsLastNorm(child.weight, child.bias, child.num_features, child.eps)
                setattr(parent, name, norm)
    if channels_last:
        for module in network.modules():
            if isinstance(module, nn.ReLU | nn.LeakyReLU | SharedPReLU | nn.Upsample):
                module.register_forward_hook(_keep_layout(layout))


def _keep_layout(layout: torch.memory_format) -> Any:
    """A concatenation hands back slices, which activations would take number by number."""

    def aligned(gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=layout)

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(aligned)  # type: ignore[no-untyped-call]

    return hook


class _SharedSlope(torch.autograd.Function):
    """PReLU with one slope for all channels.

    torch computes both gradients of PReLU element by element; a leaky ReLU's is vectorised, and the
    slope's is one sum.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.slope = float(slope.detach())
        return functional.leaky_relu(inputs, ctx.slope)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        (inputs,) = ctx.saved_tensors
        for_slope = (gradient * inputs.clamp(max=0)).sum(dtype=torch.float32).reshape(1)
        return torch.ops.aten.leaky_relu_backward(gradient, inputs, ctx.slope, False), for_slope


class SharedPReLU(nn.Module):
    """``nn.PReLU`` with a single slope, for a CPU: the same outputs, three times as fast back."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of any shape; the same shape and dtype."""
        # torch does not annotate `apply`.
        outputs: Tensor = _SharedSlope.apply(inputs, self.weight)  # type: ignore[no-untyped-call]
        return outputs


class ChannelsLastNorm(nn.Module):
    """``nn.GroupNorm``, or instance normalisation with a group a channel, where channels lie last.

    ``weight`` and ``bias`` are None where nothing is learnt, as in an instance normalisation.
    """

    def __init__(
        self, weight: nn.Parameter | None, bias: nn.Parameter | None, groups: int, epsilon: float
    ) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self._groups, self._epsilon = groups, epsilon

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, *axes); the same shape, dtype and layout."""
        layout = _last(images)
        images = images.contiguous(memory_format=layout)
        narrow = images.shape[1] // self._groups < _WIDE_GROUP
        if images.dtype != torch.bfloat16 or not narrow or images.numel() < _LEAST_NUMBERS:
            plain = functional.group_norm(
                images, self._groups, self.weight, self.bias, self._epsilon
            )
            return plain.contiguous(memory_format=layout)
        ones = torch.ones(images.shape[1], device=images.device)
        normalised: Tensor = _GroupNorm.apply(  # type: ignore[no-untyped-call]
            images,
            ones if self.weight is None else self.weight,
            torch.zeros_like(ones) if self.bias is None else self.bias,
            self._groups,
            self._epsilon,
        )
        return normalised


class _GroupNorm(torch.autograd.Function):
    """Group normalisation (Wu and He, 2018) of images (B, C, *axes) whose channels lie last.

    torch walks through groups of few channels number by number. Here ``tiles`` pixels in a row
    count as one of ``tiles`` times the channels; what batch normalisation, which is vectorised over
    channels, finds for those is put together afterwards, in float32. x: images, y: their
    normalised form, g: the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        epsilon: float,
    ) -> Tensor:
        batch, channels = images.shape[:2]
        pixels = images[0, 0].numel()
        if channels >= _FAST_CHANNELS and pixels >= _FAST_PIXELS:
            output, mean, inverse = torch.native_group_norm(
                images, weight, bias, batch, channels, pixels, groups, epsilon
            )
        else:
            output, mean, inverse = _normalised(images, weight, bias, groups, epsilon)
        ctx.save_for_backward(images, weight, mean, inverse)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, *statistics = ctx.saved_tensors
        mean, inverse = (one[:, None, :, None] for one in statistics)
        gradient = gradients[0].contiguous(memory_format=_last(images))
        batch, channels = images.shape[:2]
        groups, count = mean.shape[2], images[0].numel() // mean.shape[2]
        seen, given = _rows(images), _rows(gradient)
        columns = seen.shape[1]
        tiles = columns // channels
        zeros, ones = weight.new_zeros(columns), weight.new_ones(columns)
        found = [
            _BATCH_NORM_BACKWARD(
                g, x, ones, zeros, ones, None, None, False, 0.0, [False, True, True]
            )
            for x, g in zip(seen.chunk(batch), given.chunk(batch), strict=True)
        ]
        # Sums of g * x, and of g, over the pixels: (2, B, 1, groups, channels of a group).
        sums = torch.stack([one[1] for one in found] + [one[2] for one in found])
        sums = sums.view(2, batch, tiles, groups, channels // groups).sum(2, keepdim=True)
        # The former becomes that of g * y, the weight's gradient.
        sums[0].addcmul_(mean, sums[1], value=-1).mul_(inverse)
        scale = weight.view(groups, -1)
        along, level = (sums * scale).sum(-1, keepdim=True) * (inverse / -count)
        # dx = scale * inverse * g + slope * x + offset
        slope = along * inverse
        offset = torch.addcmul(level, slope, mean, value=-1)
        factors = images.new_empty((3, batch, tiles, groups, channels // groups))
        for place, factor in enumerate((offset, slope, scale * inverse)):
            factors[place].copy_(factor)
        factors = factors.view(3, batch, columns, 1, 1)
        back = torch.addcmul(factors[0], seen, factors[1]).addcmul_(given, factors[2])
        axes = images.shape[2:]
        back = back.permute(0, 2, 3, 1).reshape(batch, *axes, channels)
        for_weight, for_bias = sums.sum((1, 2)).view(2, channels)
        return back.movedim(-1, 1), for_weight, for_bias, None, None


def _normalised(
    images: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised images, and mean and inverse deviation (B, groups) in float32."""
    batch, channels = images.shape[:2]
    rows, output = _rows(images), torch.empty_like(images)
    columns = rows.shape[1]
    tiles = columns // channels
    shape = (batch, tiles, groups, channels // groups)
    spare = weight.new_zeros(columns)
    found = [torch.batch_norm_update_stats(one, spare, spare, 0.0) for one in rows.chunk(batch)]
    means = torch.stack([mean for mean, _ in found]).view(shape)
    variances = torch.stack([variance for _, variance in found]).view(shape)
    between, mean = torch.var_mean(means, (1, 3), correction=0, keepdim=True)
    variance = variances.mean((1, 3), keepdim=True).add_(between)
    scale, shift = weight.repeat(tiles), bias.repeat(tiles)
    nowhere = spare.new_empty(0), spare.new_empty(0)
    for one, out, centre, spread in zip(
        rows.chunk(batch),
        _rows(output).chunk(batch),
        mean.expand(shape).reshape(batch, columns),
        variance.expand(shape).reshape(batch, columns),
        strict=True,
    ):
        torch.native_batch_norm(
            one, scale, shift, centre, spread, False, 0.0, epsilon, out=(out, *nowhere)
        )
    return output, mean.view(batch, groups), (variance + epsilon).rsqrt_().view(batch, groups)


def _rows(images: Tensor) -> Tensor:
    """Images (B, C, *axes), channels last, as (B, C * tiles, pixels / tiles, 1), not copied."""
    batch, channels, *axes = images.shape
    pixels, tiles = math.prod(axes), 1
    while 2 * tiles * channels <= _COLUMNS and pixels % (2 * tiles) == 0:
        tiles *= 2
    lines = images.movedim(1, -1).view(batch, pixels // tiles, 1, tiles * channels)
    return lines.permute(0, 3, 1, 2)


def _last(images: Tensor) -> torch.memory_format:
    return torch.channels_last if images.dim() == 4 else torch.channels_last_3d
