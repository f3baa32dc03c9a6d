"""The node: rechecks every past round from public data alone (paper, sections 4.3 and 4.5)."""

from __future__ import annotations

import enum
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pouw.events import Event, TaskPublished
from pouw.ledger.history import Finding, RoundRecord
from pouw.ledger.replay import Replay
from pouw.roles.base import Observer
from pouw.roles.capacity import OracleOptions, open_scoring
from pouw.roles.follow import Progress, follow
from pouw.roles.replayer import Replayer
from pouw.roles.rescoring import Problem, Rescore, Rescorer
from pouw.types import Parameters, Verdict


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """What to recheck: rounds from ``first`` on, and which models, with what.

    ``provenance``: also train segments of winners again, where their task asks for it.
    ``scoring``: processes or cluster, as an oracle has them.
    """

    rescore: Rescore = "winners"
    first: int = 1
    provenance: bool = False
    scoring: OracleOptions = field(default_factory=OracleOptions)


class Result(enum.StrEnum):
    """What an audit says of one round."""

    TRUE = "true"
    FALSE = "false"
    NOT_RECHECKABLE = "not recheckable"


@dataclass(frozen=True, slots=True)
class RoundAudit:
    """What became of one closed round, and whether that is right.

    ``measured_ppm`` is this node's own score of the winner, None where it was not scored again;
    ``marginal``: it is below the claim by less than other hardware explains.
    """

    round: int
    task: int
    verdict: str
    winner: str | None
    claim_ppm: int | None
    measured_ppm: int | None
    paid_wei: int
    marginal: bool
    unfinished: tuple[int, ...]
    header: str
    result: Result
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All closed rounds, and what concerns none of them; ``block_number``: up to where."""

    rounds: tuple[RoundAudit, ...]
    problems: tuple[Problem, ...]
    block_number: int

    @property
    def exit_code(self) -> int:
        """0: all true; 2: something is false or altered; 3: nothing false, not all recheckable."""
        if self.problems or any(one.result is Result.FALSE for one in self.rounds):
            return 2
        unknown = any(one.result is Result.NOT_RECHECKABLE for one in self.rounds)
        return 3 if unknown else 0

    def to_json(self) -> dict[str, Any]:
        """The report with amounts as text, since they pass what JSON readers keep exact."""
        rounds = [{**asdict(one), "paid_wei": str(one.paid_wei)} for one in self.rounds]
        return {
            "rounds": rounds,
            "problems": [asdict(problem) for problem in self.problems],
            "block_number": self.block_number,
            "exit_code": self.exit_code,
        }


def audit(
    observer: Observer,
    options: AuditOptions | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Recheck every closed round: rules, headers, payouts, then models.

    The whole history is replayed in any case: what a round may do follows from what was before.
    """
    arena, options = observer.arena, options or AuditOptions()
    audits: dict[int, RoundAudit] = {}
    begun: Event | None = None
    scoring = open_scoring(options.scoring, observer.home)
    with tempfile.TemporaryDirectory(prefix="audit-", dir=observer.home) as scratch:
        replayer = Replayer(observer.home / "provenance.log")
        say = progress or (lambda _stage, _done, _total: None)
        rescorer = Rescorer(
            observer, Path(scratch), scoring, replayer, tell=lambda what: say(what, 0, 0)
        )

        def take(record: RoundRecord) -> None:
            if record.number >= options.first:
                audits[record.number] = _round_audit(arena.parameters(), record, rescorer, options)

        replaying = Replay(arena.parameters(), arena.chain_id, arena.address, take)
        try:
            with follow(observer, progress) as followed:
                for event in followed.events:
                    begun = begun or event
                    replaying.feed(event)
        finally:
            scoring.end()
            replayer.end()
    history = replaying.history()
    found: defaultdict[int | None, list[Problem]] = defaultdict(list)
    for finding in history.findings:
        if finding.round in audits:
            found[finding.round].append(Problem(str(finding.rule), finding.detail))
        else:
            found[None].append(Problem(str(finding.rule), _placed(finding)))
    rounds = tuple(_with(audited, found[number]) for number, audited in audits.items())
    against = [Problem(str(rule), told) for rule, told in followed.differences(history)]
    general = (*_beginning(observer, begun), *found[None], *against)
    return AuditReport(rounds, general, followed.block or 0)


def _with(audited: RoundAudit, found: list[Problem]) -> RoundAudit:
    """A round's audit with what breaks a rule before what is wrong with its models."""
    problems = (*found, *audited.problems)
    result = Result.TRUE
    if any(problem.recheckable for problem in problems):
        result = Result.FALSE
    elif problems:
        result = Result.NOT_RECHECKABLE
    return replace(audited, problems=problems, result=result)


def _placed(finding: Finding) -> str:
    """What a finding says, with the round that the report has no line for."""
    where = f"round {finding.round}: " if finding.round is not None else ""
    return where + finding.detail


def _beginning(observer: Observer, first: Event | None) -> list[Problem]:
    """What everything else follows from where the arena's first events are missing."""
    if first is None or (isinstance(first, TaskPublished) and first.task_id == 1):
        return []
    detail = (
        f"the first event, of block {first.block_number}, is not the publication of task 1: is "
        f"from_block {observer.from_block} after the arena's deployment? Then the rest says nothing"
    )
    return [Problem("beginning", detail)]


def _round_audit(
    parameters: Parameters, record: RoundRecord, rescorer: Rescorer, options: AuditOptions
) -> RoundAudit:
    won = record.verdict is Verdict.WINNER
    rechecked = rescorer.recheck(record, options.rescore)
    problems = rechecked.problems
    if options.provenance:
        problems += rescorer.provenance(record)
    return RoundAudit(
        round=record.number,
        task=record.task.task_id,
        verdict=record.verdict.name.lower().replace("_", "-"),
        winner=record.winner if won else None,
        claim_ppm=record.score if won else None,
        measured_ppm=rechecked.measured_ppm,
        paid_wei=_paid(parameters, record) if won else 0,
        marginal=rechecked.marginal,
        unfinished=tuple(record.unfinished),
        header="0x" + (record.header_hash or b"").hex(),
        result=Result.TRUE,
        problems=problems,
    )


def _paid(parameters: Parameters, record: RoundRecord) -> int:
    """The winner's part of the reward; the remainder of the fee's equal division is in it."""
    fee = parameters.fee_of(record.task.reward)
    if record.ruling is not None and record.ruling.changed:
        return record.task.reward - fee
    voters = sum(
        vote.verdict is record.verdict and vote.winner == record.winner for vote in record.votes
    )
    return record.task.reward - (fee // voters * voters if voters else fee)
