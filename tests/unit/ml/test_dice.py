from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pouw.errors import DataError
from pouw.ml.data import load_case, read_dataset
from pouw.ml.dice import case_counts, case_dice, score_ppm

DATA = Path(os.environ.get("POUW_DATA", "../shared/data")) / "hippocampus"


def square(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


@pytest.mark.parametrize(
    ("prediction", "truth", "counts", "dice"),
    [
        (square([0, 1], [1, 1]), square([0, 1], [1, 1]), [(3, 0, 0)], Fraction(1)),
        (square([1, 1], [0, 0]), square([0, 0], [1, 1]), [(0, 2, 2)], Fraction(0)),
        (square([1, 1], [1, 0]), square([0, 1], [1, 1]), [(2, 1, 1)], Fraction(2, 3)),
        (square([0, 0], [0, 0]), square([0, 0], [0, 0]), [(0, 0, 0)], Fraction(1)),
        (square([0, 0], [0, 1]), square([0, 0], [0, 0]), [(0, 1, 0)], Fraction(0)),
        (square([1, 2], [2, 0]), square([1, 1], [2, 0]), [(1, 0, 1), (1, 1, 0)], Fraction(2, 3)),
        (square([1, 0], [0, 0]), square([1, 0], [0, 0]), [(1, 0, 0), (0, 0, 0)], Fraction(1)),
    ],
)
def test_case_dice__of_a_2x2_image__is_counted_by_hand(
    prediction: np.ndarray, truth: np.ndarray, counts: list[tuple[int, int, int]], dice: Fraction
) -> None:
    found = case_counts(prediction, truth, len(counts) + 1)
    assert found == counts
    assert case_dice(found) == dice


def masks(labels: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.uint8, (3, 4, 5), elements=st.integers(0, labels - 1))


@given(data=st.data(), labels=st.integers(2, 12))
def test_case_counts__of_any_masks__equal_a_naive_count(data: st.DataObject, labels: int) -> None:
    prediction, truth = data.draw(masks(labels)), data.draw(masks(labels))
    pairs = list(zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True))
    naive = [
        (
            sum(p == k == t for p, t in pairs),
            sum(p == k != t for p, t in pairs),
            sum(p != k == t for p, t in pairs),
        )
        for k in range(1, labels)
    ]
    assert case_counts(prediction, truth, labels) == naive


@pytest.mark.parametrize("size", [1, 511, 512, 513, 1 << 19, (1 << 20) + 700])
@pytest.mark.parametrize("labels", [2, 3, 4])
def test_case_counts__of_bytes_and_of_words__agree_at_any_size(size: int, labels: int) -> None:
    random = np.random.default_rng(size)
    prediction, truth = (random.integers(0, labels, size, dtype=np.uint8) for _ in range(2))
    of_words = case_counts(prediction.astype(np.int64), truth.astype(np.int64), labels)
    assert case_counts(prediction, truth, labels) == of_words
    # The highest sums a byte of them can reach.
    highest = np.full(size, labels - 1, dtype=np.uint8)
    assert case_counts(highest, highest, labels)[-1] == (size, 0, 0)


def test_case_counts__of_signed_labels_and_256_of_them__does_not_overflow() -> None:
    truth = np.full((2, 2), 255, dtype=np.uint8)
    counts = case_counts(truth.astype(np.int64), truth, 256)
    assert counts[254] == (4, 0, 0)
    assert len(counts) == 255


@pytest.mark.parametrize(
    ("prediction", "truth", "labels", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2, "shape"),
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8), 2, "not integer labels"),
        (np.full((2, 2), 2, np.uint8), np.zeros((2, 2), np.uint8), 2, "prediction holds labels"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint8), 3, "truth holds labels"),
        (np.full((2, 2), 4, np.uint8), np.zeros((2, 2), np.uint8), 4, "prediction holds labels"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), -1, np.int8), 2, "truth holds labels"),
    ],
)
def test_case_counts__of_arrays_that_are_no_labels__are_refused(
    prediction: np.ndarray, truth: np.ndarray, labels: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        case_counts(prediction, truth, labels)


def test_score_ppm__floors_once_at_the_end() -> None:
    third = [(1, 2, 2)]  # Dice 1/3
    assert score_ppm([third]) == 333_333
    assert score_ppm([third, third, third]) == 333_333
    assert score_ppm([third, [(1, 1, 0)]]) == 500_000  # (1/3 + 2/3) / 2, exactly


def test_score_ppm__of_a_failed_case__counts_it_as_zero() -> None:
    assert score_ppm([[(5, 0, 0)], None]) == 500_000
    assert score_ppm([None]) == 0


def test_score_ppm__of_no_case__is_refused() -> None:
    with pytest.raises(DataError, match="no case"):
        score_ppm([])


def test_case_dice__of_no_label_or_negative_counts__is_refused() -> None:
    with pytest.raises(DataError, match="foreground"):
        case_dice([])
    with pytest.raises(DataError, match="never negative"):
        case_dice([(-1, 0, 0)])


@pytest.mark.skipif(not DATA.is_dir(), reason="POUW_DATA names no folder with hippocampus/")
def test_case_dice__of_real_masks__agrees_with_monai() -> None:
    torch = pytest.importorskip("torch")
    from monai.metrics.meandice import DiceMetric

    for file in read_dataset(DATA).train[:10]:
        truth = load_case(file, 3).label
        assert truth is not None
        prediction = np.roll(truth, (1, 2, 0), axis=(0, 1, 2))
        metric = DiceMetric(include_background=False, reduction="mean")
        one_hot = [
            torch.from_numpy(np.eye(3, dtype=np.float64)[m]).movedim(-1, 0)[None]
            for m in (prediction, truth)
        ]
        metric(*one_hot)
        ours = case_dice(case_counts(prediction, truth, 3))
        assert float(ours) == pytest.approx(metric.aggregate().item(), abs=1e-6)
        assert 0.2 < ours < 1
