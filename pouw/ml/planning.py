"""When to stop training: never late, and almost nothing wasted (paper, sections 3 and 4.3).

Pure arithmetic on milliseconds; the caller owns the clock. ``StepPlanner`` decides before every
optimiser step; ``whole_epochs`` is the paper's rule, kept as the baseline to compare with.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pouw.types import SCORE_ONE_PPM

_SENDING_SECONDS = 1
_LEAST_LAST_CALL_SECONDS = 8
_INSURED_BLOCKS = 3
_BLOCK_QUANTILE_PPM = 900_000


@dataclass(frozen=True, slots=True)
class PlanningPolicy:
    """How careful the planner is.

    A duration is expected to be at most ``safety_ppm`` times the ``quantile_ppm`` quantile of the
    last ``window`` ones; before the first was seen it is taken to be the ``first_*`` guess.
    ``reserve_ms`` is kept free before the deadline for what nobody timed.
    """

    quantile_ppm: int = 950_000
    window: int = 64
    safety_ppm: int = 1_500_000
    reserve_ms: int = 1_000
    first_step_ms: int = 1_000
    first_closing_ms: int = 2_000


class _Durations:
    """The last durations of one kind of work, in milliseconds."""

    def __init__(self, first_ms: float, policy: PlanningPolicy) -> None:
        self._seen: deque[float] = deque(maxlen=policy.window)
        self._first_ms = first_ms
        self._policy = policy
        self._expected_ms = first_ms

    def observe(self, milliseconds: float) -> None:
        self._seen.append(milliseconds)
        ordered = sorted(self._seen)
        rank = math.ceil(len(ordered) * self._policy.quantile_ppm / SCORE_ONE_PPM)
        self._expected_ms = ordered[max(rank, 1) - 1] * self._policy.safety_ppm / SCORE_ONE_PPM

    @property
    def expected_ms(self) -> float:
        return self._expected_ms


class StepPlanner:
    """Decides step by step whether another one, and the snapshot that has to follow, still fit.

    Closing is the work of a snapshot: validation, writing the files, syncing them. While steps and
    closings last at most ``safety_ppm`` times the quantile of what was observed before (or the
    first guess, before anything was), a step that was allowed ends, with its closing, before
    ``stop_at_ms - reserve_ms``.
    """

    def __init__(self, stop_at_ms: float, policy: PlanningPolicy | None = None) -> None:
        self.policy = policy or PlanningPolicy()
        self._stop_at_ms = stop_at_ms
        self._steps = _Durations(self.policy.first_step_ms, self.policy)
        self._closings = _Durations(self.policy.first_closing_ms, self.policy)

    def observe_step(self, milliseconds: float) -> None:
        """Take note of how long an optimiser step took, its batch included."""
        self._steps.observe(milliseconds)

    def observe_closing(self, milliseconds: float) -> None:
        """Take note of how long a whole snapshot took."""
        self._closings.observe(milliseconds)

    @property
    def training_ends_ms(self) -> float:
        """The moment at which the last snapshot has to begin."""
        return self._stop_at_ms - self.policy.reserve_ms - self._closings.expected_ms

    def allows_step(self, now_ms: float) -> bool:
        """Whether a step that begins now leaves time for its snapshot."""
        return now_ms + self._steps.expected_ms <= self.training_ends_ms

    def allows_snapshot(self, now_ms: float) -> bool:
        """Whether a snapshot now leaves time for a step and a last snapshot after it."""
        return self.allows_step(now_ms + self._closings.expected_ms)


def budget_fraction_ppm(now_ms: float, started_at_ms: float, ends_ms: float) -> int:
    """How much of the budget is over, in ppm from 0 to 1,000,000."""
    if ends_ms <= started_at_ms:
        return SCORE_ONE_PPM
    fraction = (now_ms - started_at_ms) / (ends_ms - started_at_ms)
    return min(max(int(fraction * SCORE_ONE_PPM), 0), SCORE_ONE_PPM)


def whole_epochs(epoch_ms: float, now_ms: float, stop_at_ms: float) -> int:
    """The paper's rule (section 4.3): time one epoch, then plan the whole epochs that still fit."""
    if epoch_ms <= 0:
        raise ValueError("an epoch takes time")
    return max(0, math.floor((stop_at_ms - now_ms) / epoch_ms))


def last_call_seconds(block_seconds: float) -> int:
    """How long before t1 the last snapshot has to be complete, for its commitment to be included.

    Any stretch as long as the time between blocks holds a block; the rest is for sealing the
    snapshot, signing and spreading the transaction.
    """
    return max(_LEAST_LAST_CALL_SECONDS, math.ceil(block_seconds) + _SENDING_SECONDS)


def insurance_seconds(block_seconds: float) -> int:
    """How long before that one more snapshot is due, whose commitment stands if the last is late.

    Three blocks: two in a row may be full, missed or lost with their fork.
    """
    return _INSURED_BLOCKS * math.ceil(block_seconds) + _SENDING_SECONDS


def block_seconds(timestamps: Sequence[int]) -> float:
    """The time between blocks: a high quantile over those with ``timestamps``, in ascending order.

    0 where there are fewer than two.
    """
    gaps = sorted(later - sooner for sooner, later in pairwise(timestamps))
    if not gaps:
        return 0.0
    return float(gaps[math.ceil(len(gaps) * _BLOCK_QUANTILE_PPM / SCORE_ONE_PPM) - 1])
