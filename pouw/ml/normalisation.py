"""The normalisation layer that a network's arguments name."""

from __future__ import annotations

from monai.networks.layers.utils import get_norm_layer
from torch import nn

from pouw.ml.architectures.base import Architecture

Named = tuple[str, dict[str, int | bool]]


def named(arguments: Architecture) -> Named:
    """Name and keywords as MONAI takes them; scale and shift are learnt in every kind."""
    if arguments.norm == "group":
        return "group", {"num_groups": arguments.groups}
    return arguments.norm, {"affine": True}


def layer(norm: Named, dims: int, features: int) -> nn.Module:
    """The layer over that many features."""
    made: nn.Module = get_norm_layer(name=norm, spatial_dims=dims, channels=features)
    return made
