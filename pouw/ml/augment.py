"""Random changes of intensity, made on the device that trains."""

from __future__ import annotations

import torch
from torch import Tensor

from pouw.ml.sampling import Batch

_NOISE_SHARE = 0.5


def shaded(images: Tensor, batch: Batch, strength: float) -> Tensor:
    """Contrast, brightness, a linear bias field and noise on normalised ``images`` (B, C, *patch).

    ``strength`` 0 changes nothing. Everything follows from the batch; noise is drawn on the images'
    device, so CPU and CUDA draw different noise from one seed.
    """
    if strength == 0:
        return images
    axes = images.dim() - 2
    shades = torch.from_numpy(batch.shades).to(images.device) * strength
    columns = shades.reshape(len(shades), -1, *(1,) * (axes + 1)).unbind(1)
    gain = 1 + columns[0]
    for axis, size in enumerate(images.shape[2:]):
        shape = [1] * images.dim()
        shape[2 + axis] = size
        gain = gain + columns[2 + axis] * torch.linspace(-1, 1, size, device=images.device).reshape(
            shape
        )
    generator = torch.Generator(images.device)
    generator.manual_seed(batch.seed)
    noise = torch.empty_like(images).normal_(generator=generator)
    deviation = columns[2 + axes].abs() * _NOISE_SHARE
    return torch.addcmul(columns[1], images, gain).addcmul_(noise, deviation)
