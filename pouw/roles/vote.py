"""What an oracle does next, and what it votes for: pure decisions on what it has found."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from pouw.documents import Judged
from pouw.events import Revealed
from pouw.roles.evidence import Judgement
from pouw.roles.view import View
from pouw.types import Verdict

PATIENCE_SECONDS = 20


class Step(enum.StrEnum):
    """What an oracle does next."""

    WAIT = "wait"
    WARM = "warm up"
    SCORE = "score revealed models"
    REPORT = "report"
    FINALIZE = "close the round"
    SYNC = "drop the selected task"
    WITHDRAW = "withdraw"


def decide(view: View, *, voted: bool, outcome: Judgement | None, credit: int) -> Step:
    """The oracle's next step; ``outcome`` is what it would vote for, once it knows."""
    live, at = view.live, view.deadlines
    if live and at and live.opened and not voted and view.contract_now < at.t4:
        if view.confirmed < at.t3 or outcome is None:
            return Step.SCORE
        return Step.REPORT if outcome.verdict != Verdict.NONE else Step.WAIT
    if credit:
        return Step.WITHDRAW
    chore = view.chore(PATIENCE_SECONDS)
    if chore is not None:
        return Step(chore.value)
    if (view.selected and not live) or (at and at.t1 <= view.now < at.t2):
        return Step.WARM
    return Step.WAIT


def weigh(
    ranked: Sequence[Revealed],
    finding: Callable[[Revealed], Judged | None],
    invalid_reason: str | None,
) -> Judgement | None:
    """What to vote for, as far as every reveal above it is judged; None while it is open.

    ``ranked``: the reveals, best rank first; ``finding``: on one of them, None while there is none;
    ``invalid_reason``: what is wrong with the task itself.
    """
    if invalid_reason is not None:
        return Judgement(Verdict.INVALID, None, (), tuple(ranked), invalid_reason)
    judged: list[Judged] = []
    for place, event in enumerate(ranked):
        record = finding(event)
        if record is None:
            return None
        judged.append(record)
        if record.true_claim:
            return Judgement(
                Verdict.WINNER, event.miner, tuple(judged), tuple(ranked[place + 1 :]), ""
            )
    verdict = Verdict.NO_TRUE_CLAIM if ranked else Verdict.NONE
    return Judgement(verdict, None, tuple(judged), (), "")
