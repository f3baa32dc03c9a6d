"""The node: rechecks every past round from public data alone (paper, sections 4.3 and 4.5)."""

from __future__ import annotations

import enum
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pouw.chain.index import EventIndex
from pouw.documents import TaskSpec
from pouw.errors import (
    ContentError,
    ContentNotFound,
    DataError,
    DocumentError,
    ModelError,
    ProcessError,
    SealError,
)
from pouw.events import Event
from pouw.hashing import raw_cid
from pouw.ledger.history import History, RevealRecord, RoundRecord
from pouw.ledger.replay import Replay, replay
from pouw.ml.requests import ScoringRequest
from pouw.roles.base import Observer
from pouw.roles.content import fetch_manifest, fetch_spec, open_archive
from pouw.roles.processes import ScoringProcess
from pouw.types import Parameters, Verdict

MARGINAL_PPM = 1_000
SCORING_SECONDS = 3_600.0
_SAY_EVERY = 1_000

Rescore = Literal["none", "winners", "all"]
Progress = Callable[[str, int, int], None]


class Result(enum.StrEnum):
    """What an audit says of one round."""

    TRUE = "true"
    FALSE = "false"
    NOT_RECHECKABLE = "not recheckable"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or cannot be rechecked; ``cid`` names the block concerned."""

    rule: str
    detail: str
    cid: str | None = None
    recheckable: bool = True


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
    """All closed rounds, and what concerns none of them."""

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


def read_history(observer: Observer) -> History:
    """The arena's history from its events, every rule checked on the way."""
    with follow(observer) as events:
        arena = observer.arena
        return replay(events, arena.parameters(), arena.chain_id, arena.address)


@contextmanager
def follow(observer: Observer, progress: Progress | None = None) -> Iterator[Iterator[Event]]:
    """The confirmed events in order, from the node's index, which follows the chain first."""
    say = progress or (lambda _stage, _done, _total: None)
    index = EventIndex(observer.home, observer.arena, observer.from_block)
    try:
        index.sync(observer.confirmations, partial(say, "read the chain"))
        total = index.count()
        say("replay", 0, total)
        yield _counted(index.events(), lambda done: say("replay", done, total))
    finally:
        index.close()


def _counted(events: Iterator[Event], say: Callable[[int], None]) -> Iterator[Event]:
    for done, event in enumerate(events, 1):
        yield event
        if done % _SAY_EVERY == 0:
            say(done)


def audit(
    observer: Observer,
    rescore: Rescore = "winners",
    progress: Progress | None = None,
    first: int = 1,
) -> AuditReport:
    """Recheck every closed round from ``first`` on: rules, headers, payouts, then models.

    The whole history is replayed in any case: what a round may do follows from what was before.
    """
    arena = observer.arena
    audits: dict[int, RoundAudit] = {}
    with tempfile.TemporaryDirectory(prefix="audit-", dir=observer.home) as scratch:
        scorer = _Scorer(observer, Path(scratch))

        def take(record: RoundRecord) -> None:
            if record.number >= first:
                audits[record.number] = _round_audit(arena.parameters(), record, scorer, rescore)

        replaying = Replay(arena.parameters(), arena.chain_id, arena.address, take)
        try:
            with follow(observer, progress) as events:
                for event in events:
                    replaying.feed(event)
        finally:
            scorer.close()
    history = replaying.history()
    found: defaultdict[int | None, list[Problem]] = defaultdict(list)
    for finding in history.findings:
        concerned = finding.round if finding.round in audits else None
        found[concerned].append(Problem(str(finding.rule), finding.detail))
    rounds = tuple(_with(audited, found[number]) for number, audited in audits.items())
    general = (*found[None], *_against_contract(observer, history))
    return AuditReport(rounds, general, history.block_number)


def _with(audited: RoundAudit, found: list[Problem]) -> RoundAudit:
    """A round's audit with what breaks a rule before what is wrong with its models."""
    problems = (*found, *audited.problems)
    result = Result.TRUE
    if any(problem.recheckable for problem in problems):
        result = Result.FALSE
    elif problems:
        result = Result.NOT_RECHECKABLE
    return replace(audited, problems=problems, result=result)


def _against_contract(observer: Observer, history: History) -> list[Problem]:
    """What the events tell against what the contract holds at the same block."""
    block = max(observer.from_block, history.block_number)
    arena = observer.arena
    problems = []
    for rule, told, held in (
        ("pool-history", history.pool_history, arena.pool_history(block)),
        ("header", history.last_header, arena.last_header(block)),
    ):
        if told != held:
            detail = f"the events give 0x{told.hex()}, the contract holds 0x{held.hex()}"
            problems.append(Problem(rule, detail))
    return problems


def _round_audit(
    parameters: Parameters, record: RoundRecord, scorer: _Scorer, rescore: Rescore
) -> RoundAudit:
    won = record.verdict is Verdict.WINNER
    measured, marginal, problems = None, False, list[Problem]()
    if rescore != "none" and record.verdict in (Verdict.WINNER, Verdict.NO_TRUE_CLAIM):
        measured, marginal, problems = _recheck_models(record, scorer, rescore)
    return RoundAudit(
        round=record.number,
        task=record.task.task_id,
        verdict=record.verdict.name.lower().replace("_", "-"),
        winner=record.winner if won else None,
        claim_ppm=record.score if won else None,
        measured_ppm=measured,
        paid_wei=_paid(parameters, record) if won else 0,
        marginal=marginal,
        unfinished=tuple(record.unfinished),
        header="0x" + (record.header_hash or b"").hex(),
        result=Result.TRUE,
        problems=tuple(problems),
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


def _recheck_models(
    record: RoundRecord, scorer: _Scorer, rescore: Rescore
) -> tuple[int | None, bool, list[Problem]]:
    """The winner's score, whether it is marginal, and what is wrong with the judged models."""
    measured: int | None = None
    marginal = False
    problems: list[Problem] = []
    for reveal in record.reveals:
        is_winner = record.verdict is Verdict.WINNER and reveal.miner == record.winner
        if not is_winner and rescore != "all":
            continue
        score, problem = scorer.score(record, reveal)
        if is_winner:
            measured = score
            if problem is not None:
                problems.append(problem)
            elif score is not None and score < reveal.claim:
                marginal = reveal.claim - score < MARGINAL_PPM
                if not marginal:
                    problems.append(Problem("score", f"claimed {reveal.claim}, measured {score}"))
            break
        # Ranked above the winner: it was rejected, so its claim must not hold by a clear margin.
        if score is not None and score >= reveal.claim + MARGINAL_PPM:
            detail = f"{reveal.miner} ranks higher, claimed {reveal.claim}, measures {score}"
            problems.append(Problem("highest true claim", detail))
    return measured, marginal, problems


class _Scorer:
    """Fetches, verifies and scores revealed models in a child process."""

    def __init__(self, observer: Observer, scratch: Path) -> None:
        self._observer = observer
        self._scratch = scratch
        self._process = ScoringProcess(observer.home / "scoring.log", threads=1, device="cpu")

    def close(self) -> None:
        self._process.end()

    def score(self, record: RoundRecord, reveal: RevealRecord) -> tuple[int | None, Problem | None]:
        """This node's score of a revealed model, or what is wrong with it."""
        try:
            return self._score(record, reveal)
        except ContentNotFound as error:
            return None, Problem("content", str(error), error.cid, recheckable=False)
        except ContentError as error:
            return None, Problem("content", str(error), error.cid)
        except (DocumentError, SealError, DataError, ModelError) as error:
            return None, Problem("content", str(error))
        except ProcessError as error:
            return None, Problem("score", str(error), recheckable=False)

    def _score(
        self, record: RoundRecord, reveal: RevealRecord
    ) -> tuple[int | None, Problem | None]:
        store = self._observer.store
        spec: TaskSpec = fetch_spec(store, record.task.spec_digest)
        manifest = fetch_manifest(store, reveal.manifest_digest)
        model = self._scratch / f"{raw_cid(reveal.manifest_digest)}.safetensors"
        store.get_file(manifest.model.cid, model, manifest.model.bytes)
        if record.test_key is None:
            return None, Problem("keys", "the test set was never opened")
        folder = self._scratch / str(record.task.task_id)
        data = open_archive(store, spec, "test", record.test_key, record.task.key_hash, folder)
        self._process.ask(
            ScoringRequest(
                id=f"round {record.number} {reveal.miner}", spec=spec, data=data, model=model
            )
        )
        answer = self._process.answer(SCORING_SECONDS)
        if answer is None:
            self._process.end()
            return None, Problem("score", "scoring took too long", recheckable=False)
        if answer.score_ppm is None:
            return None, Problem("score", f"{answer.reason}: {answer.detail}")
        return answer.score_ppm, None
