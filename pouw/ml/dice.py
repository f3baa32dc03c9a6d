"""Dice in integers: what a claim is measured by must not depend on rounding.

Per case and foreground label, TP, FP and FN are counted; Dice = 2TP / (2TP + FP + FN), and 1 where
all three are 0. A score is the mean over foreground labels, then over cases, as exact fractions,
floored to parts per million once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pouw.errors import DataError
from pouw.types import SCORE_ONE_PPM

Counts = tuple[int, int, int]


def case_counts(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], labels: int
) -> list[Counts]:
    """(TP, FP, FN) of labels 1 to ``labels - 1``; both arrays hold labels, in one shape.

    DataError where the shapes differ or a value is no label.
    """
    if prediction.shape != truth.shape:
        raise DataError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    for name, array in (("prediction", prediction), ("truth", truth)):
        if array.dtype.kind not in "iu":
            raise DataError(f"{name} holds {array.dtype}, not integer labels")
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < labels:
            raise DataError(f"{name} holds labels outside 0 to {labels - 1}")
    pairs = truth.astype(np.int32) * labels + prediction.astype(np.int32)
    joint = np.bincount(pairs.ravel(), minlength=labels * labels).reshape(labels, labels)
    hits, predicted, true = np.diag(joint), joint.sum(axis=0), joint.sum(axis=1)
    return [
        (int(hits[k]), int(predicted[k] - hits[k]), int(true[k] - hits[k]))
        for k in range(1, labels)
    ]


def case_dice(counts: Sequence[Counts]) -> Fraction:
    """The mean Dice over the foreground labels of one case, exactly; an absent label counts 1."""
    if not counts:
        raise DataError("a case needs at least one foreground label")
    return sum((_label_dice(*label) for label in counts), Fraction(0)) / len(counts)


def _label_dice(hits: int, false_positives: int, false_negatives: int) -> Fraction:
    if min(hits, false_positives, false_negatives) < 0:
        raise DataError("counts are never negative")
    whole = 2 * hits + false_positives + false_negatives
    return Fraction(2 * hits, whole) if whole else Fraction(1)


def score_ppm(cases: Sequence[Sequence[Counts] | None]) -> int:
    """The mean of ``case_dice`` over all cases, floored to ppm; None (a failed case) scores 0."""
    if not cases:
        raise DataError("there is no case to score")
    total = sum((case_dice(case) for case in cases if case is not None), Fraction(0))
    return int(total * SCORE_ONE_PPM / len(cases))
