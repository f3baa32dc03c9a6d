"""The validation Dice of a snapshot, bounded in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from pouw.documents import TaskSpec
from pouw.errors import ModelError
from pouw.ml.data import Image, Label
from pouw.ml.dice import Counts, case_counts, score_ppm
from pouw.ml.inference import predict


class _OutOfTime(ModelError):
    """Raised between two windows once the time is up."""


@dataclass(frozen=True, slots=True)
class ValidationCase:
    """A prepared image (C, X, Y, Z) with its label (X, Y, Z) on the same grid."""

    image: Image
    label: Label


@dataclass(frozen=True, slots=True)
class Window:
    """When to stop, in milliseconds on ``clock_ms``: no case is begun after ``enough_ms`` but the
    first, and none goes on after ``until_ms``."""

    enough_ms: float
    until_ms: float
    clock_ms: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Validation:
    """The mean Dice over the first ``cases`` validation cases."""

    dice_ppm: int
    cases: int


def validate(
    network: nn.Module,
    cases: Sequence[ValidationCase],
    spec: TaskSpec,
    window: Window,
) -> Validation | None:
    """The mean Dice over the cases, in order, that the window leaves time for.

    None where it leaves none for the first. A case whose output is not finite scores 0.
    """

    def stop_in_time(*_: object) -> None:
        if window.clock_ms() >= window.until_ms:
            raise _OutOfTime("out of time")

    counts: list[list[Counts] | None] = []
    hook = network.register_forward_pre_hook(stop_in_time)
    try:
        for case in cases:
            if counts and window.clock_ms() >= window.enough_ms:
                break
            try:
                labels = predict(network, case.image, spec)
            except _OutOfTime:
                break
            except ModelError:
                counts.append(None)
            else:
                counts.append(case_counts(labels, case.label, len(spec.labels)))
    finally:
        hook.remove()
    return Validation(score_ppm(counts), len(counts)) if counts else None
