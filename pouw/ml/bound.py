"""When a claim cannot come true any more: an upper bound while cases are being scored.

A case that was not looked at can at most reach Dice 1, and a case that was seen in part at most
what it would reach if the rest of it were predicted perfectly. Nothing is estimated: a claim that
the bound refuses would be refused by scoring everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from pouw.ml.dice import Counts, case_dice
from pouw.types import SCORE_ONE_PPM

_UNIT = 10**18
_PPB = 10**9


def in_hash_order(names: Iterable[str], spec_digest: bytes) -> list[str]:
    """``names`` of cases by sha-256 of spec digest and name: an order that nobody chose."""
    return sorted(names, key=lambda name: hashlib.sha256(spec_digest + name.encode()).digest())


def at_best(seen: Sequence[Counts], unseen_true: Sequence[int]) -> tuple[Counts, ...]:
    """The counts of a case seen in part, were the rest perfect.

    ``seen``: (TP, FP, FN) of each foreground label so far; ``unseen_true``: how many voxels of it
    the truth still has.
    """
    return tuple(
        (hits + rest, false_positives, false_negatives)
        for (hits, false_positives, false_negatives), rest in zip(seen, unseen_true, strict=True)
    )


class ScoreBound:
    """The highest score that ``cases`` cases can still reach.

    What is lost for good is kept in units of 10^-18, each loss rounded down, so that a bound is
    never too low and sums stay small over any number of cases. ``claim_ppm`` None: no claim, which
    can always come true. ``lost_ppb``: what others lost on cases of their own.
    """

    def __init__(self, cases: int, claim_ppm: int | None, lost_ppb: int = 0) -> None:
        self._cases = cases
        self._claim_ppm = claim_ppm
        self._lost = lost_ppb * (_UNIT // _PPB)

    @property
    def lost_ppb(self) -> int:
        """What is lost for good, in cases of Dice 0, times 10^9, rounded down."""
        return self._lost // (_UNIT // _PPB)

    def add(self, counts: Sequence[Counts] | None) -> None:
        """One case is finished; None: it failed and scores 0."""
        self._lost += _loss(counts)

    def best_ppm(self, partial: Sequence[Counts] | None = None) -> int:
        """The bound, floored to ppm; ``partial``: counts of the present case at best."""
        lost = self._lost + (0 if partial is None else _loss(partial))
        return (self._cases * _UNIT - lost) * SCORE_ONE_PPM // (self._cases * _UNIT)

    def refuses(self, partial: Sequence[Counts] | None = None) -> bool:
        """Whether the claim cannot come true any more."""
        return self._claim_ppm is not None and self.best_ppm(partial) < self._claim_ppm


def _loss(counts: Sequence[Counts] | None) -> int:
    return _UNIT if counts is None else int((1 - case_dice(counts)) * _UNIT)
