"""How good a model becomes for the compute spent on it, fitted to real trainings of ours.

The points are scores on a hidden test set after trainings of different length and seed (what task,
what network and how: `measured_points` and ``benchmarks/learning_curves.py``). The mean follows a
power law towards a ceiling, the spread between seeds a power law of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pouw.types import SCORE_ONE_PPM

Floats = NDArray[np.float64]
_EXPONENTS = np.linspace(0.05, 3.0, 296)


@dataclass(frozen=True, slots=True)
class Point:
    """One real training: optimizer steps, and the final model's Dice on the test set."""

    steps: int
    dice: float


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Dice after ``steps``: mean ``ceiling - scale * steps**-exponent``, Gaussian between seeds.

    Known from ``least_steps`` to ``most_steps``; beyond them it stays as it is there.
    """

    ceiling: float
    scale: float
    exponent: float
    spread_scale: float
    spread_exponent: float
    least_steps: int
    most_steps: int

    def mean(self, steps: float) -> float:
        """The expected Dice of one training."""
        return float(self.ceiling - self.scale * self._within(steps) ** -self.exponent)

    def spread(self, steps: float) -> float:
        """The standard deviation between seeds."""
        return float(self.spread_scale * self._within(steps) ** -self.spread_exponent)

    def best_of(
        self, random: np.random.Generator, steps: float, trainings: float, samples: int
    ) -> Floats:
        """The best Dice of so many independent trainings, ``samples`` times.

        The largest of n draws lies at the quantile U**(1/n); n need not be whole.
        """
        quantile = random.random(samples) ** (1.0 / trainings)
        return np.minimum(self.mean(steps) + self.spread(steps) * _normal_quantile(quantile), 1.0)

    def _within(self, steps: float) -> float:
        return min(max(steps, self.least_steps), self.most_steps)


@cache
def measured() -> dict[str, Any]:
    """The measurement that the package carries: task, network, points."""
    text = resources.files("pouw.ledger.simulate").joinpath("curves.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def measured_points() -> tuple[Point, ...]:
    """The real trainings that the package carries."""
    return tuple(
        Point(point["steps"], point["score_ppm"] / SCORE_ONE_PPM) for point in measured()["points"]
    )


def fit(points: Sequence[Point]) -> LearningCurve:
    """The curve with the least squared error; at least three lengths, two seeds each.

    For a given exponent ceiling and scale follow linearly, so only that one is searched for.
    """
    lengths = np.array(sorted({point.steps for point in points}), dtype=np.float64)
    groups = [np.array([p.dice for p in points if p.steps == steps]) for steps in lengths]
    means = np.array([group.mean() for group in groups])
    spreads = np.array([max(group.std(ddof=1), 1e-6) for group in groups])
    # A length counts by how well its mean is known.
    weights = np.sqrt([len(group) for group in groups]) / np.maximum(spreads, spreads.max() / 10)

    def solve(exponent: float) -> tuple[float, Floats]:
        design = np.stack([np.ones_like(lengths), -(lengths**-exponent)], axis=1)
        answer = np.linalg.lstsq(design * weights[:, None], means * weights, rcond=None)[0]
        return float((((design @ answer - means) * weights) ** 2).sum()), answer

    exponent = min(_EXPONENTS, key=lambda each: solve(float(each))[0])
    ceiling, scale = solve(float(exponent))[1]
    slope, offset = np.polyfit(np.log(lengths), np.log(spreads), 1)
    return LearningCurve(
        ceiling=float(ceiling),
        scale=float(scale),
        exponent=float(exponent),
        spread_scale=float(np.exp(offset)),
        spread_exponent=float(-slope),
        least_steps=int(lengths[0]),
        most_steps=int(lengths[-1]),
    )


def resampled(points: Sequence[Point], random: np.random.Generator) -> LearningCurve:
    """A curve fitted to as many points of each length drawn with replacement (bootstrap)."""
    drawn: list[Point] = []
    for steps in sorted({point.steps for point in points}):
        group = [point for point in points if point.steps == steps]
        drawn += [group[i] for i in random.integers(0, len(group), len(group))]
    return fit(drawn)


def _normal_quantile(probability: Floats) -> Floats:
    """Quantiles of the standard normal distribution."""
    inside = np.clip(probability, 1e-300, 1 - 1e-16)
    return np.fromiter(map(NormalDist().inv_cdf, inside.tolist()), np.float64, len(inside))
