"""Double spending against confirmations: what the paper's 51 % argument (4.6) is worth.

An attacker with share q of the compute builds a chain in private, on the tasks that everybody
knows, until it holds at least as many highest-accuracy models as the public one (the fork choice
of `pouw.ledger.forkchoice`; an equal count is his, since he can try hashes until his is lower). A
merchant waits for z rounds. Both chains grow by one round a time, whatever the compute. Every
honest miner trains one model by himself; the attacker divides his compute into as many trainings
as serve him best, and several devices train one model without loss.

Beside it the same for hash-based proof of work (Nakamoto 2008; exact form: Rosenfeld 2014).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pouw.ledger.simulate.curve import LearningCurve, Point, fit, resampled

_HORIZON_ROUNDS = 200
"""An attacker who has not caught up so long after the merchant delivered gives up."""
_TASK_SAMPLES = 40_000
_REFIT_SAMPLES = 4_000
_Z_95 = 1.959964

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Honest:
    """The public chain: so many miners, each able to train so many steps in a Phase 1."""

    miners: int
    steps: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A probability with its 95 % interval (Wilson)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, successes: int, trials: int) -> Estimate:
        """From counted successes."""
        share, square = successes / trials, _Z_95**2
        centre = (share + square / (2 * trials)) / (1 + square / trials)
        spread = share * (1 - share) / trials + square / (4 * trials**2)
        half = _Z_95 * math.sqrt(spread) / (1 + square / trials)
        return cls(share, max(0.0, centre - half), min(1.0, centre + half))


def chance_per_task(
    curve: LearningCurve,
    share: float,
    honest: Honest,
    random: np.random.Generator,
    samples: int = _TASK_SAMPLES,
) -> float:
    """How often the attacker's best model of a task is better than the best honest one.

    His compute is ``share / (1 - share)`` of the honest miners' together. Of one training with all
    of it, two with half, and so on, he takes what wins most often.
    """
    compute = share / (1 - share) * honest.miners * honest.steps
    if compute < 1:
        return 0.0
    public = curve.best_of(random, honest.steps, honest.miners, samples)
    chances = []
    trainings = 1.0
    while trainings == 1.0 or compute / trainings >= curve.least_steps:
        own = curve.best_of(random, compute / trainings, trainings, samples)
        chances.append(float((own > public).mean()))
        trainings *= 2
    return max(chances)


def double_spend(
    chance: float, confirmations: int, trials: int, random: np.random.Generator
) -> Estimate:
    """How often the private chain is followed at some time after ``confirmations`` rounds.

    ``chance`` as of `chance_per_task`, independent from task to task.
    """
    won = random.random((trials, confirmations + _HORIZON_ROUNDS)) < chance
    lead = np.cumsum(np.where(won, 1, -1), axis=1, dtype=np.int32)
    caught_up = (lead[:, confirmations - 1 :] >= 0).any(axis=1)
    return Estimate.of(int(caught_up.sum()), trials)


def double_spend_by_hash(
    share: float, confirmations: int, trials: int, random: np.random.Generator
) -> Estimate:
    """The same in hash-based proof of work: every block is the attacker's with chance ``share``.

    He succeeds when, once the public chain has ``confirmations`` blocks, his is as long.
    """
    blocks = 2 * (confirmations + _HORIZON_ROUNDS)
    own = np.cumsum(random.random((trials, blocks)) < share, axis=1, dtype=np.int32)
    public = np.arange(1, blocks + 1, dtype=np.int32) - own
    caught_up = ((public >= confirmations) & (own >= public)).any(axis=1)
    return Estimate.of(int(caught_up.sum()), trials)


def double_spend_by_hash_exact(share: float, confirmations: int) -> float:
    """Rosenfeld's closed form of `double_spend_by_hash` (arXiv:1402.2009), without a horizon."""
    p, q, n = 1 - share, share, confirmations
    if q >= p:
        return 1.0
    return 1 - sum(math.comb(m + n - 1, m) * (p**n * q**m - p**m * q**n) for m in range(n + 1))


def even_share(curve: LearningCurve, honest: Honest, seed: int) -> float:
    """The share of all compute with which the attacker wins every other task (to 0.001).

    From there on he catches up sooner or later, however many rounds the merchant waits for: what
    51 % is to hash-based proof of work. Every probe sees the same random numbers.
    """
    low, high = 0.0, 1.0 - 1e-6
    while high - low > 0.001:
        middle = (low + high) / 2
        chance = chance_per_task(curve, middle, honest, np.random.default_rng(seed))
        low, high = (low, middle) if chance >= 0.5 else (middle, high)
    return (low + high) / 2


@dataclass(frozen=True, slots=True)
class Attack:
    """One point of a double-spend curve.

    ``chance``: how often the attacker wins a task; ``success``: how often he overturns a payment,
    its interval over refits of the curve to resampled points; ``by_hash``: the same with hashes.
    """

    share: float
    miners: int
    chance: float
    success: Estimate
    by_hash: Estimate


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate: every share of the compute against every number of honest miners."""

    shares: tuple[float, ...]
    miners: tuple[int, ...]
    steps: int
    confirmations: int
    trials: int = 20_000
    refits: int = 40
    seed: int = 0


def attacks(points: Sequence[Point], plan: Plan, progress: Progress | None = None) -> list[Attack]:
    """Double-spend curves of a plan, from measured points; the same seed gives the same result."""
    random = np.random.default_rng(plan.seed)
    curve = fit(points)
    refits = [resampled(points, random) for _ in range(plan.refits)]
    z, found = plan.confirmations, []
    total = len(plan.miners) * len(plan.shares)
    for miners in plan.miners:
        honest = Honest(miners, plan.steps)
        for share in plan.shares:
            chance = chance_per_task(curve, share, honest, random)
            success = double_spend(chance, z, plan.trials, random)
            spread = [success.low, success.high]
            for refit in refits:
                other = chance_per_task(refit, share, honest, random, _REFIT_SAMPLES)
                spread.append(double_spend(other, z, plan.trials // 10, random).value)
            band = Estimate(success.value, *interval(spread))
            by_hash = double_spend_by_hash(share, z, plan.trials, random)
            found.append(Attack(share, miners, chance, band, by_hash))
            if progress is not None:
                progress(len(found), total)
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of ``values``: what the fit of the curve leaves open."""
    low, high = np.quantile(np.asarray(values), (0.025, 0.975))
    return float(low), float(high)
