"""``fcn34``: the 2D network of the paper's experiments (section 5, GlaS).

After the FCN of L. Yang, Y. Zhang, J. Chen, S. Zhang and D. Z. Chen, *Suggestive Annotation: A Deep
Active Learning Framework for Biomedical Image Segmentation*, MICCAI 2017 (section 2.1). Taken from
there: an encoder of residual modules with bottlenecks (1x1, 3x3, 1x1 convolutions, the first two a
quarter as wide), batch normalisation, and a decoder that brings the features of every scale to full
size and merges them there. Ours, where the text leaves it open: five scales of two modules each,
widths that double, and nearest-neighbour enlargement (a 3x3 convolution over all scales smooths
what it leaves), whose gradient can be repeated exactly. The longest way from image to logits has
34 convolutions: 1 + 5 x 2 x 3 + 1 (to the decoder) + 1 (merging) + 1 (to labels).
"""

from __future__ import annotations

import torch
from torch import nn

from pouw.ml.architectures.paper import FCN_SCALES, Fcn34Arguments
from pouw.ml.normalisation import Named, layer, named


class Fcn34(nn.Module):
    """Images (B, C, X, Y) to logits (B, labels, X, Y); axes are multiples of 16."""

    def __init__(self, arguments: Fcn34Arguments, channels: int, labels: int) -> None:
        super().__init__()
        first, norm = arguments.width, named(arguments)
        self.stem = _convolution(norm, channels, first, 3)
        scales, laterals, width = [], [], first
        for scale in range(FCN_SCALES):
            wide = first << scale
            scales.append(
                nn.Sequential(
                    Bottleneck(norm, width, wide, 2 if scale else 1),
                    Bottleneck(norm, wide, wide, None),
                )
            )
            laterals.append(
                nn.Sequential(
                    _convolution(norm, wide, first, 1),
                    nn.Upsample(scale_factor=1 << scale) if scale else nn.Identity(),
                )
            )
            width = wide
        self.scales = nn.ModuleList(scales)
        self.laterals = nn.ModuleList(laterals)
        self.merge = _convolution(norm, FCN_SCALES * first, first, 3)
        self.classify = nn.Conv2d(first, labels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of ``images``."""
        features, merged = self.stem(images), []
        for scale, lateral in zip(self.scales, self.laterals, strict=True):
            features = scale(features)
            merged.append(lateral(features))
        logits: torch.Tensor = self.classify(self.merge(torch.cat(merged, dim=1)))
        return logits


class Bottleneck(nn.Module):
    """A residual module: 1x1 to a quarter of the width, 3x3, 1x1 back, beside a shortcut.

    The shortcut is a projection with that ``stride``; None: the features themselves.
    """

    def __init__(self, norm: Named, inputs: int, outputs: int, stride: int | None) -> None:
        super().__init__()
        narrow = outputs // 4
        self.residual = nn.Sequential(
            _convolution(norm, inputs, narrow, 1),
            _convolution(norm, narrow, narrow, 3, stride or 1),
            nn.Conv2d(narrow, outputs, 1, bias=False),
            layer(norm, 2, outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), layer(norm, 2, outputs)
            )
        self.activate = nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``features`` plus what the three convolutions make of them."""
        result: torch.Tensor = self.activate(self.shortcut(features) + self.residual(features))
        return result


def _convolution(
    norm: Named, inputs: int, outputs: int, kernel: int, stride: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        layer(norm, 2, outputs),
        nn.ReLU(inplace=True),
    )
