"""Which revealed models a node keeps (paper, 4.6: models of low accuracy are pruned).

Documents, headers and archives are always kept: small, or needed to check what remains. Rounds that
are not closed are not touched. What was pruned can no longer be scored again, which an audit says.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pouw.ledger.forkchoice import HIGH_ACCURACY_MARGIN_PPM
from pouw.ledger.history import History, RevealRecord, RoundRecord
from pouw.types import RoundNumber, Verdict


class Keep(enum.StrEnum):
    """What is worth its space."""

    BEST = "best"  # the best winner of every task, over all rounds
    HIGH_ACCURACY = "high-accuracy"  # every claim that stood, close to the best of its task


@dataclass(frozen=True, slots=True)
class Retention:
    """What becomes of one revealed model; ``reason`` in words."""

    round: RoundNumber
    reveal: RevealRecord
    kept: bool
    reason: str


def retentions(
    history: History, keep: Keep, margin_ppm: int = HIGH_ACCURACY_MARGIN_PPM
) -> tuple[Retention, ...]:
    """Every revealed model of the closed rounds, those to prune first, the worst claim first.

    A task is its spec, in however many rounds it was taken. A reveal ranked above the winner was
    found to be false, so its claim says nothing and it is never kept.
    """
    closed = [record for record in history.rounds.values() if record.closed]
    best: dict[bytes, tuple[int, RoundNumber]] = {}
    for record in closed:
        if record.verdict is Verdict.WINNER:
            # Of equal scores the earlier round's: its block came first.
            found = (record.score, RoundNumber(-record.number))
            spec = record.task.spec_digest
            best[spec] = max(found, best.get(spec, found))
    decided = [
        _retention(record, reveal, keep, margin_ppm, best.get(record.task.spec_digest))
        for record in closed
        for reveal in record.reveals
    ]
    return tuple(sorted(decided, key=lambda one: (one.kept, one.reveal.claim, one.round)))


def _retention(
    record: RoundRecord,
    reveal: RevealRecord,
    keep: Keep,
    margin_ppm: int,
    best: tuple[int, RoundNumber] | None,
) -> Retention:
    def decide(kept: bool, reason: str) -> Retention:
        return Retention(record.number, reveal, kept, reason)

    won = record.reveal_of(record.winner)
    if record.verdict is not Verdict.WINNER or won is None or best is None:
        return decide(False, "its round has no winner")
    if record.rank_of(reveal) < record.rank_of(won):
        return decide(False, "its claim was found to be false")
    score, earliest = best
    if reveal is won and (record.score, -record.number) == (score, earliest):
        return decide(True, "the best model of its task")
    if record.task.first and reveal is not won:
        return decide(False, "its claim was not looked at: the earliest true one won")
    if keep is Keep.HIGH_ACCURACY and reveal.claim >= score - margin_ppm:
        return decide(True, f"within {margin_ppm} ppm of the best model of its task")
    return decide(False, f"{score - reveal.claim} ppm below the best model of its task")
