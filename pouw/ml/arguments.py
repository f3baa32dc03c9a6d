"""The closed registry: networks by name, their arguments checked without torch.

A network is named by a document of a stranger: every argument has bounds, unknown names and
arguments are refused, and nothing is built before the check.
"""

from __future__ import annotations

import math
from typing import Final

from pydantic import ValidationError

from pouw.documents import Caps, Network, TaskSpec
from pouw.errors import ModelError, ModelTooLarge
from pouw.ml.architectures.base import Architecture
from pouw.ml.architectures.dynunet import DynUnetArguments
from pouw.ml.architectures.paper import Fcn34Arguments, Unet3dPaperArguments
from pouw.ml.architectures.segresnet import SegResNetArguments
from pouw.ml.architectures.unet import UnetArguments
from pouw.ml.replays import STATES, max_checkpoints_bytes

REGISTRY: Final[dict[str, type[Architecture]]] = {
    "dynunet": DynUnetArguments,
    "fcn34": Fcn34Arguments,
    "segresnet": SegResNetArguments,
    "unet": UnetArguments,
    "unet3d-paper": Unet3dPaperArguments,
}
_FLOAT32_BYTES: Final = 4
_BFLOAT16_BYTES: Final = 2
_FEWEST_CHECKPOINTS: Final = 4


def names() -> tuple[str, ...]:
    """The networks of the registry."""
    return tuple(sorted(REGISTRY))


def check(network: Network, labels: int) -> Architecture:
    """The checked arguments of ``network`` with ``labels`` outputs.

    ModelError for an unknown network or argument, or a value out of bounds, with what is allowed.
    """
    model = REGISTRY.get(network.name)
    if model is None:
        raise ModelError(
            f"no network {network.name!r}", hint=f"the registry has: {', '.join(names())}"
        )
    try:
        arguments = model.model_validate(network.arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"network {network.name}: {where + ': ' if where else ''}{first['msg']}",
            hint=f"arguments: {', '.join(sorted(model.model_fields))}",
        ) from error
    problem = arguments.check_labels(labels)
    if problem:
        raise ModelError(
            f"network {network.name}: {problem}",
            hint="with residual units, groups must divide the number of labels",
        )
    return arguments


def check_patch(network: Network, labels: int, patch: tuple[int, ...]) -> Architecture:
    """``check``, and that the network can be run on patches of that shape (ModelError if not)."""
    arguments = check(network, labels)
    if len(patch) != arguments.dims:
        raise ModelError(f"a {arguments.dims}D network cannot take patches of {patch}")
    divisors = arguments.divisors
    if any(size % divisor for size, divisor in zip(patch, divisors, strict=True)):
        raise ModelError(
            f"patch {patch} does not fit network {network.name}",
            hint=f"every axis must be a multiple of {divisors[0]}"
            if len(set(divisors)) == 1
            else f"the axes must be multiples of {divisors}",
        )
    sites = math.prod(size // divisor for size, divisor in zip(patch, divisors, strict=True))
    # A group of one channel has no more to normalise over than any other norm.
    alone = arguments.norm != "group" or arguments.groups in arguments.normalised()
    if alone and sites == 1:
        raise ModelError(
            f"patch {patch} leaves {network.name} a single site to normalise over",
            hint="take a larger patch, or the group norm with fewer groups",
        )
    return arguments


def check_caps(
    network: Network, channels: int, labels: int, patch: tuple[int, ...], caps: Caps
) -> None:
    """That a task's network keeps to the task's own caps; nobody could train or score it else.

    ModelError where the network or the patch is not possible, ModelTooLarge with what is too large.
    """
    arguments = check_patch(network, labels, patch)
    size = arguments.parameters(channels, labels)
    if size > caps.parameters:
        raise ModelTooLarge(
            f"network {network.name} has {size} parameters, the task allows {caps.parameters}",
            hint="raise caps.parameters, or take a narrower network",
        )
    if size * _FLOAT32_BYTES > caps.model_bytes:
        raise ModelTooLarge(
            f"network {network.name} has {size * _FLOAT32_BYTES} bytes of parameters, "
            f"the task allows models of {caps.model_bytes}",
            hint="raise caps.model_bytes",
        )
    least, most = _FEWEST_CHECKPOINTS * STATES * size * _FLOAT32_BYTES, max_checkpoints_bytes(caps)
    if least > most:
        raise ModelTooLarge(
            f"{_FEWEST_CHECKPOINTS} checkpoints of network {network.name} have {least} bytes, "
            f"the task allows {most}",
            hint="raise caps.checkpoints_bytes",
        )
    bound = arguments.activation_bound(channels, labels, patch)
    if bound > caps.activation_bytes:
        raise ModelTooLarge(
            f"one patch of {patch} takes up to {bound} bytes of activations, "
            f"the task allows {caps.activation_bytes}",
            hint="raise caps.activation_bytes, or take a smaller patch",
        )


def check_trainable(spec: TaskSpec, memory_bytes: int) -> None:
    """That training the task's network may come to a model within its caps, in such a memory.

    ModelError where the network is not possible, ModelTooLarge with what is too large.
    """
    size = check(spec.network, len(spec.labels)).parameters(len(spec.channels), len(spec.labels))
    least = size * _BFLOAT16_BYTES
    if size > spec.caps.parameters or least > spec.caps.model_bytes:
        raise ModelTooLarge(
            f"network {spec.network.name} has {size} parameters, in {least} bytes at least; the "
            f"task allows {spec.caps.parameters}, and models of {spec.caps.model_bytes} bytes"
        )
    states = size * _FLOAT32_BYTES * STATES
    if states > memory_bytes:
        raise ModelTooLarge(
            f"training network {spec.network.name} takes {states} bytes, "
            f"this machine has {memory_bytes}"
        )


def activation_bound(
    arguments: Architecture, channels: int, labels: int, patch: tuple[int, ...]
) -> int:
    """An upper bound, in bytes, of all layers' float32 outputs for one patch.

    ``pouw.ml.networks.activation_bytes`` counts them; this needs no torch.
    """
    return arguments.activation_bound(channels, labels, patch)
