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

# Up to here, sums beat comparing, and comparing one histogram (measured: benchmarks/oracle.py).
_BIT_LABELS, _FEW_LABELS = 3, 8
_PIECE = 1 << 19  # with what is made of it, it stays in the cache
_ROWS = 64  # of labels below 4 their sum fits into a byte


def case_counts(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], labels: int
) -> list[Counts]:
    """(TP, FP, FN) of labels 1 to ``labels - 1``; both arrays hold labels, in one shape.

    All three are margins and diagonal of the joint histogram of both arrays. DataError where the
    shapes differ or a value is no label.
    """
    if prediction.shape != truth.shape:
        raise DataError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    for name, array in (("prediction", prediction), ("truth", truth)):
        if array.dtype.kind not in "iu":
            raise DataError(f"{name} holds {array.dtype}, not integer labels")
    if labels <= _FEW_LABELS and prediction.dtype == truth.dtype == np.uint8:
        count = _by_bits if labels <= _BIT_LABELS else _margins
        joint = count(prediction.ravel().view(np.uint8), truth.ravel().view(np.uint8), labels)
    else:
        joint = _histogram(prediction.ravel(), truth.ravel(), labels)
    return [(hits, predicted - hits, true - hits) for hits, predicted, true in joint[1:]]


def _by_bits(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8], labels: int
) -> list[tuple[int, int, int]]:
    """``_margins`` for at most the labels 0, 1 and 2.

    1 and 2 have no bit in common, so ``prediction & truth`` is the label where both agree, else 0.
    """
    both = np.empty(min(_PIECE, truth.size), dtype=np.uint8)
    ones, twos = [0, 0, 0], [0, 0, 0]
    for start in range(0, truth.size, _PIECE):
        piece, true_piece = (array[start : start + _PIECE] for array in (prediction, truth))
        _highest("prediction", piece, labels)
        _highest("truth", true_piece, labels)
        agreed = np.bitwise_and(piece, true_piece, out=both[: piece.size])
        for place, array in enumerate((agreed, piece, true_piece)):
            count, total = int(np.count_nonzero(array)), _sum(array)
            ones[place] += 2 * count - total
            twos[place] += total - count
    rows = ((0, 0, 0), (ones[0], ones[1], ones[2]), (twos[0], twos[1], twos[2]))
    return list(rows[:labels])


def _sum(array: NDArray[np.uint8]) -> int:
    """The sum of labels below 4: rows of words are added, whose bytes cannot overflow."""
    whole = array.size - array.size % (8 * _ROWS)
    words = array[:whole].view(np.uint64).reshape(_ROWS, -1)
    return int(words.sum(axis=0).view(np.uint8).sum()) + int(array[whole:].sum())


def _margins(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8], labels: int
) -> list[tuple[int, int, int]]:
    """(hits, predicted, true) of every label but 0, by comparing pieces that stay in the cache."""
    size = min(_PIECE, truth.size)
    ours, theirs = np.empty(size, dtype=bool), np.empty(size, dtype=bool)
    totals = [[0, 0, 0] for _ in range(labels)]
    for start in range(0, truth.size, _PIECE):
        piece, true_piece = prediction[start : start + size], truth[start : start + size]
        highest = max(_highest("prediction", piece, labels), _highest("truth", true_piece, labels))
        predicted, true = ours[: piece.size], theirs[: piece.size]
        for label in range(1, highest + 1):
            np.equal(piece, np.uint8(label), out=predicted)
            np.equal(true_piece, np.uint8(label), out=true)
            total = totals[label]
            total[1] += int(np.count_nonzero(predicted))
            total[2] += int(np.count_nonzero(true))
            np.logical_and(predicted, true, out=true)
            total[0] += int(np.count_nonzero(true))
    return [(hits, predicted, true) for hits, predicted, true in totals]


def _histogram(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], labels: int
) -> list[tuple[int, int, int]]:
    for name, array in (("prediction", prediction), ("truth", truth)):
        _highest(name, array, labels)
    pairs = truth.astype(np.int32) * labels + prediction.astype(np.int32)
    joint = np.bincount(pairs, minlength=labels * labels).reshape(labels, labels)
    margins = np.diag(joint), joint.sum(axis=0), joint.sum(axis=1)
    return [(int(hits), int(ours), int(true)) for hits, ours, true in zip(*margins, strict=True)]


def _highest(name: str, array: NDArray[np.integer[Any]], labels: int) -> int:
    """The highest label in ``array``; DataError where a value is none."""
    if not array.size:
        return 0
    highest = int(array.max())
    if highest >= labels or (array.dtype.kind == "i" and int(array.min()) < 0):
        raise DataError(f"{name} holds labels outside 0 to {labels - 1}")
    return highest


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
