"""``unet3d-paper``: the 3D network of the paper's experiments (section 5, MM-WHS).

The 3D U-Net of O. Cicek, A. Abdulkadir, S. S. Lienkamp, T. Brox and O. Ronneberger, *3D U-Net:
Learning Dense Volumetric Segmentation from Sparse Annotation*, MICCAI 2016, which the paper
follows: four resolution steps of two 3x3x3 convolutions, each with batch normalisation and ReLU,
the second doubling the channels; 2x2x2 max-pooling down, 2x2x2 transposed convolutions up, skips
joined. Convolutions are padded here, so that a patch's labels have the patch's size. With ``width``
32, three channels and three labels the convolutions hold the 19,069,955 parameters of the source.
"""

from __future__ import annotations

import torch
from torch import nn

from pouw.ml.architectures.paper import UNET3D_STEPS, Unet3dPaperArguments
from pouw.ml.normalisation import Named, layer, named


class Unet3d(nn.Module):
    """Images (B, C, X, Y, Z) to logits (B, labels, X, Y, Z); axes are multiples of 8."""

    def __init__(self, arguments: Unet3dPaperArguments, channels: int, labels: int) -> None:
        super().__init__()
        norm, inputs = named(arguments), channels
        analysis, enlarge, synthesis = [], [], []
        for step in range(UNET3D_STEPS):
            first = arguments.width << step
            analysis.append(_pair(norm, inputs, first, 2 * first))
            inputs = 2 * first
        for step in reversed(range(UNET3D_STEPS - 1)):
            own = arguments.width << (step + 1)
            enlarge.append(nn.ConvTranspose3d(2 * own, 2 * own, 2, 2, bias=False))
            synthesis.append(_pair(norm, 3 * own, own, own))
        self.analysis = nn.ModuleList(analysis)
        self.pool = nn.MaxPool3d(2)
        self.enlarge = nn.ModuleList(enlarge)
        self.synthesis = nn.ModuleList(synthesis)
        self.classify = nn.Conv3d(2 * arguments.width, labels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of ``images``."""
        features, skips = images, []
        for step, convolve in enumerate(self.analysis):
            features = convolve(self.pool(features) if step else features)
            skips.append(features)
        skips.pop()
        for enlarge, convolve in zip(self.enlarge, self.synthesis, strict=True):
            features = convolve(torch.cat((enlarge(features), skips.pop()), dim=1))
        logits: torch.Tensor = self.classify(features)
        return logits


def _pair(norm: Named, inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Two 3x3x3 convolutions, each normalised and rectified."""
    layers: list[nn.Module] = []
    for before, after in ((inputs, middle), (middle, outputs)):
        layers += [
            nn.Conv3d(before, after, 3, padding=1),
            layer(norm, 3, after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
