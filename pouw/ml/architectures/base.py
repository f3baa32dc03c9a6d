"""What the arguments of every network answer without torch: how large it is, what it can take.

A network is named by a document of a stranger, so its size is known before anything is built, and
a publisher plans without a deep-learning framework.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pouw.documents import Part

Width = Annotated[int, Field(ge=1, le=1024)]
Outputs = Iterator[tuple[tuple[int, ...], int]]


class Architecture(Part):
    """Arguments of one network with bounds; ``groups`` is that of the group norm, else 1."""

    norm: Literal["group", "instance", "batch"]
    groups: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        if self.norm != "group" and self.groups != 1:
            raise ValueError("groups belongs to the group norm")
        for count in self.normalised():
            if count % self.groups:
                raise ValueError(f"channels must be multiples of groups ({self.groups})")
        return self

    @property
    def dims(self) -> int:
        """How many spatial axes the network has."""
        raise NotImplementedError

    @property
    def divisors(self) -> tuple[int, ...]:
        """What each axis of a patch must be a multiple of."""
        raise NotImplementedError

    def normalised(self) -> tuple[int, ...]:
        """The numbers of channels that a normalisation sees, whatever the labels."""
        raise NotImplementedError

    def parameters(self, channels: int, labels: int) -> int:
        """Exactly how many numbers the parameters hold, with these inputs and outputs."""
        raise NotImplementedError

    def outputs(self, channels: int, labels: int) -> Outputs:
        """An upper bound of what all layers put out, the input included.

        Pairs: by what each axis of the patch is divided there, and numbers at every remaining site.
        """
        raise NotImplementedError

    def check_labels(self, labels: int) -> str | None:
        """Why the network cannot have that many outputs; None where it can."""
        return None

    def activation_bound(self, channels: int, labels: int, patch: Sequence[int]) -> int:
        """An upper bound, in bytes, of all layers' float32 outputs for one patch."""
        return 4 * sum(
            numbers * math.prod(size // part for size, part in zip(patch, parts, strict=True))
            for parts, numbers in self.outputs(channels, labels)
        )


def convolution(kernel: Sequence[int], inputs: int, outputs: int, *, bias: bool) -> int:
    """Parameters of a (transposed) convolution."""
    return math.prod(kernel) * inputs * outputs + (outputs if bias else 0)


def scaled(factor: int, dims: int) -> tuple[int, ...]:
    """The same divisor on every axis."""
    return (factor,) * dims
