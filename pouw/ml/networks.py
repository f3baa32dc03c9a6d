"""Networks of the closed registry, built from a checked document and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, cast

import torch
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.unet import UNet

from pouw.documents import Network
from pouw.errors import ModelTooLarge
from pouw.ml.architectures.base import Architecture
from pouw.ml.architectures.dynunet import DynUnetArguments
from pouw.ml.architectures.segresnet import SegResNetArguments
from pouw.ml.architectures.unet import UnetArguments
from pouw.ml.arguments import check, check_patch, names
from pouw.ml.fcn import Fcn34
from pouw.ml.normalisation import named
from pouw.ml.unet3d import Unet3d

__all__ = ["activation_bytes", "build", "names", "parameter_count"]


def build(network: Network, channels: int, labels: int, *, parameters_cap: int) -> torch.nn.Module:
    """``network`` with that many input channels and output labels, float32, on the CPU.

    One of more than ``parameters_cap`` parameters is refused (ModelTooLarge) before it costs any
    memory. Weights follow torch's global seed.
    """
    arguments = check(network, labels)
    size = arguments.parameters(channels, labels)
    if size > parameters_cap:
        raise ModelTooLarge(
            f"network {network.name} has {size} parameters, the task allows {parameters_cap}"
        )
    return _BUILDERS[network.name](arguments, channels, labels)


def parameter_count(model: torch.nn.Module) -> int:
    """How many numbers the parameters of ``model`` hold."""
    return sum(parameter.numel() for parameter in model.parameters())


def activation_bytes(network: Network, channels: int, labels: int, patch: tuple[int, ...]) -> int:
    """Bytes of all float32 tensors that enter or leave a layer for one patch.

    Counted without memory or arithmetic; an upper bound of what inference holds at once. ModelError
    where the patch does not fit.
    """
    check_patch(network, labels, patch)
    return _activation_bytes(network.model_dump_json(), channels, labels, patch)


@functools.lru_cache(maxsize=64)
def _activation_bytes(document: str, channels: int, labels: int, patch: tuple[int, ...]) -> int:
    network = Network.model_validate_json(document)
    # Kept, so that no two tensors can have one id.
    seen: dict[int, torch.Tensor] = {}

    def note(*tensors: Any) -> None:
        seen.update({id(one): one for one in tensors if isinstance(one, torch.Tensor)})

    with torch.device("meta"), torch.no_grad():
        model = _BUILDERS[network.name](check(network, labels), channels, labels)
        for module in model.modules():
            module.register_forward_pre_hook(lambda _, inputs: note(*inputs))
            module.register_forward_hook(lambda _, _inputs, output: note(output))
        model(torch.empty((1, channels, *patch)))
    return sum(one.numel() * one.element_size() for one in seen.values())


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


def _dynunet(arguments: DynUnetArguments, channels: int, labels: int) -> torch.nn.Module:
    strides = arguments.rows(arguments.strides)
    made = DynUNet(
        spatial_dims=arguments.spatial_dims,
        in_channels=channels,
        out_channels=labels,
        kernel_size=arguments.rows(arguments.kernels),
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=arguments.filters,
        norm_name=named(arguments),
        res_block=arguments.residual,
    )
    # It holds every layer twice, by level and nested; a model file holds every tensor once.
    return torch.nn.Sequential(made.skip_layers, made.output_block)


def _segresnet(arguments: SegResNetArguments, channels: int, labels: int) -> torch.nn.Module:
    return SegResNet(
        spatial_dims=arguments.spatial_dims,
        init_filters=arguments.init_filters,
        in_channels=channels,
        out_channels=labels,
        norm=named(arguments),
        blocks_down=arguments.blocks_down,
        blocks_up=arguments.blocks_up,
        upsample_mode="deconv",
    )


# Each is called with the arguments that the registry checked under the same name.
_BUILDERS: Final = cast(
    dict[str, Callable[[Architecture, int, int], torch.nn.Module]],
    {
        "dynunet": _dynunet,
        "fcn34": Fcn34,
        "segresnet": _segresnet,
        "unet": _unet,
        "unet3d-paper": Unet3d,
    },
)
