"""Networks of the closed registry, built from a checked document and nothing else."""

from __future__ import annotations

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets.unet import UNet

from pouw.documents import Network
from pouw.errors import ModelError
from pouw.ml.arguments import UnetArguments, check, check_patch, names

__all__ = ["activation_bytes", "build", "names", "parameter_count"]


def build(network: Network, channels: int, labels: int, *, parameters_cap: int) -> torch.nn.Module:
    """``network`` with that many input channels and output labels, float32, on the CPU.

    It is laid out without memory first, so that one of more than ``parameters_cap`` parameters is
    refused (ModelError) before it costs any. Weights follow torch's global seed.
    """
    arguments = check(network, labels)
    with torch.device("meta"):
        size = parameter_count(_unet(arguments, channels, labels))
    if size > parameters_cap:
        raise ModelError(
            f"network {network.name} has {size} parameters, the task allows {parameters_cap}"
        )
    return _unet(arguments, channels, labels)


def parameter_count(model: torch.nn.Module) -> int:
    """How many numbers the parameters of ``model`` hold."""
    return sum(parameter.numel() for parameter in model.parameters())


def activation_bytes(network: Network, channels: int, labels: int, patch: tuple[int, ...]) -> int:
    """Bytes of all layers' float32 outputs for one patch, counted without running the network.

    An upper bound of what inference holds at once; ModelError where the patch does not fit.
    """
    arguments = check_patch(network, labels, patch)
    total = 0

    def add(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * output.element_size()

    with torch.device("meta"), torch.no_grad():
        model = _unet(arguments, channels, labels)
        for module in model.modules():
            if isinstance(module, SkipConnection) or not list(module.children()):
                module.register_forward_hook(add)
        model(torch.empty((1, channels, *patch)))
    return total


def _unet(arguments: UnetArguments, channels: int, labels: int) -> torch.nn.Module:
    norm: str | tuple[str, dict[str, int]] = arguments.norm
    if arguments.norm == "group":
        norm = ("group", {"num_groups": arguments.groups})
    return UNet(
        spatial_dims=arguments.spatial_dims,
        in_channels=channels,
        out_channels=labels,
        channels=arguments.channels,
        strides=arguments.strides,
        num_res_units=arguments.num_res_units,
        norm=norm,
    )
