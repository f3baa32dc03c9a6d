"""Arguments of the networks in the closed registry, checked without torch.

A network is named by a document of a stranger: every argument has bounds, unknown names and
arguments are refused, and nothing is built before the check.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from pouw.documents import Network, Part
from pouw.errors import ModelError


class UnetArguments(Part):
    """MONAI's residual U-Net; ``groups`` is that of the group norm (1 with other norms)."""

    spatial_dims: Literal[2, 3]
    channels: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=2, max_length=8)
    ]
    strides: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4)], ...], Field(min_length=1, max_length=7)
    ]
    num_res_units: Annotated[int, Field(ge=0, le=4)]
    norm: Literal["group", "instance", "batch"]
    groups: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError("strides has one entry less than channels")
        if self.norm != "group" and self.groups != 1:
            raise ValueError("groups belongs to the group norm")
        if any(count % self.groups for count in self.channels):
            raise ValueError(f"channels must be multiples of groups ({self.groups})")
        return self

    @property
    def total_stride(self) -> int:
        """What every axis of a patch must be a multiple of."""
        return math.prod(self.strides)


_ARGUMENTS: Final[dict[str, type[UnetArguments]]] = {"unet": UnetArguments}


def names() -> tuple[str, ...]:
    """The networks of the registry."""
    return tuple(sorted(_ARGUMENTS))


def check(network: Network, labels: int) -> UnetArguments:
    """The checked arguments of ``network`` with ``labels`` outputs.

    ModelError for an unknown network or argument, or a value out of bounds, with what is allowed.
    """
    model = _ARGUMENTS.get(network.name)
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
    # The topmost residual unit of MONAI's U-Net normalises as many channels as there are labels.
    if arguments.norm == "group" and arguments.num_res_units and labels % arguments.groups:
        raise ModelError(
            f"network {network.name}: {labels} labels are no multiple of {arguments.groups} groups",
            hint="with residual units, groups must divide the number of labels",
        )
    return arguments


def check_patch(network: Network, labels: int, patch: tuple[int, ...]) -> UnetArguments:
    """``check``, and that the network can be run on patches of that shape (ModelError if not)."""
    arguments = check(network, labels)
    if len(patch) != arguments.spatial_dims:
        raise ModelError(f"a {arguments.spatial_dims}D network cannot take patches of {patch}")
    stride = arguments.total_stride
    if any(size % stride for size in patch):
        raise ModelError(
            f"patch {patch} does not fit network {network.name}",
            hint=f"every axis must be a multiple of {stride}",
        )
    return arguments


def activation_bound(
    arguments: UnetArguments, channels: int, labels: int, patch: tuple[int, ...]
) -> int:
    """An upper bound, in bytes, of all layers' float32 outputs for one patch.

    ``pouw.ml.networks.activation_bytes`` counts them; this needs no torch.
    """
    units = arguments.num_res_units
    unit = 4  # convolution, norm, dropout, activation
    down = unit * max(1, units) + 1  # and the residual's own convolution
    up = unit + (unit + 1 if units else 0)
    size, total, above = list(patch), channels * math.prod(patch), labels
    for level, width in enumerate(arguments.channels):
        if level < len(arguments.strides):
            total += up * above * math.prod(size)
            size = [-(-count // arguments.strides[level]) for count in size]
        below = arguments.channels[min(level + 1, len(arguments.channels) - 1)]
        # Down to this level, and the skip connection beside what comes from below.
        total += (down * width + width + max(width, below)) * math.prod(size)
        above = width
    return 4 * total
