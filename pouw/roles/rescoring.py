"""Scoring past winners again, and training them again: the part of an audit that takes time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pouw.errors import (
    ContentError,
    ContentNotFound,
    DataError,
    DocumentError,
    LedgerError,
    ModelError,
    ProcessError,
    SealError,
)
from pouw.hashing import raw_cid
from pouw.ledger.history import RevealRecord, RoundRecord
from pouw.ml.requests import ScoringRequest
from pouw.roles.base import Observer
from pouw.roles.content import fetch_manifest, fetch_spec, open_archive
from pouw.roles.evidence import manifest_fault
from pouw.roles.scorers import Scoring
from pouw.roles.verification import verify_reveal
from pouw.types import Verdict

MARGINAL_PPM = 1_000
SCORING_SECONDS = 3_600.0

Rescore = Literal["none", "winners", "all"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or cannot be rechecked; ``cid`` names the block concerned."""

    rule: str
    detail: str
    cid: str | None = None
    recheckable: bool = True


@dataclass(frozen=True, slots=True)
class Rechecked:
    """What models of a round turned out to be.

    ``measured_ppm`` is this node's own score of the winner, None where it was not scored again;
    ``marginal``: it is below the claim by less than other hardware explains.
    """

    measured_ppm: int | None = None
    marginal: bool = False
    problems: tuple[Problem, ...] = ()


class _Faulty(Exception):
    """A revealed model cannot be scored; it says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Rescorer:
    """Fetches, verifies and scores revealed models below the folder ``scratch``."""

    observer: Observer
    scratch: Path
    scoring: Scoring

    def recheck(self, record: RoundRecord, rescore: Rescore) -> Rechecked:
        """Whether the winner was the highest true claim of the reveals in rank order."""
        if rescore == "none" or record.verdict not in (Verdict.WINNER, Verdict.NO_TRUE_CLAIM):
            return Rechecked()
        problems: list[Problem] = []
        for reveal in record.reveals:
            if record.verdict is Verdict.WINNER and reveal.miner == record.winner:
                return self._winner(record, reveal, problems)
            if rescore == "all":
                problems += self._rejected(record, reveal)
        return Rechecked(problems=tuple(problems))

    def provenance(self, record: RoundRecord) -> tuple[Problem, ...]:
        """Whether the winner was trained as its manifest says, where its task asks for that."""
        won = record.reveal_of(record.winner)
        if record.verdict is not Verdict.WINNER or won is None:
            return ()
        try:
            spec = fetch_spec(self.observer.store, record.task.spec_digest)
            if spec.provenance.policy == "none":
                return ()
            found = verify_reveal(self.observer, record, won)
        except ContentNotFound as error:
            return (Problem("content", str(error), error.cid, recheckable=False),)
        except (ContentError, DocumentError, SealError, DataError, LedgerError) as error:
            return (Problem("provenance", str(error)),)
        except ProcessError as error:
            return (Problem("provenance", str(error), recheckable=False),)
        if found.exit_code == 0:
            return ()
        return (Problem("provenance", found.summary, recheckable=found.exit_code == 2),)

    def _winner(
        self, record: RoundRecord, reveal: RevealRecord, problems: list[Problem]
    ) -> Rechecked:
        try:
            score = self._score(record, reveal)
        except _Faulty as faulty:
            return Rechecked(problems=(*problems, faulty.problem))
        short = reveal.claim - score
        if short >= MARGINAL_PPM:
            problems.append(Problem("score", f"claimed {reveal.claim}, measured {score}"))
        return Rechecked(score, 0 < short < MARGINAL_PPM, tuple(problems))

    def _rejected(self, record: RoundRecord, reveal: RevealRecord) -> list[Problem]:
        """A reveal above the winner was rejected, so its claim must not hold by a clear margin."""
        try:
            score = self._score(record, reveal)
        except _Faulty as faulty:
            # A model at fault was rejected rightly; one that is gone may have been, too.
            return [] if faulty.problem.recheckable else [faulty.problem]
        if score < reveal.claim + MARGINAL_PPM:
            return []
        detail = f"{reveal.miner} ranks higher, claimed {reveal.claim}, measures {score}"
        return [Problem("highest true claim", detail)]

    def _score(self, record: RoundRecord, reveal: RevealRecord) -> int:
        """This node's score of a revealed model, in ppm."""
        try:
            request = self._request(record, reveal)
            self.scoring.ask(request)
            answer = self.scoring.answer(SCORING_SECONDS)
        except ContentNotFound as error:
            raise _Faulty(Problem("content", str(error), error.cid, recheckable=False)) from error
        except ContentError as error:
            raise _Faulty(Problem("content", str(error), error.cid)) from error
        except (DocumentError, SealError, DataError, ModelError) as error:
            raise _Faulty(Problem("content", str(error))) from error
        except ProcessError as error:
            raise _Faulty(Problem("score", str(error), recheckable=False)) from error
        request.model.unlink(missing_ok=True)
        if answer is None:
            self.scoring.end()
            raise _Faulty(Problem("score", "scoring took too long", recheckable=False))
        if answer.score_ppm is None:
            fault = answer.reason in ("caps", "model")
            detail = f"{answer.reason}: {answer.detail}"
            raise _Faulty(Problem("score", detail, recheckable=fault))
        return answer.score_ppm

    def _request(self, record: RoundRecord, reveal: RevealRecord) -> ScoringRequest:
        """Model and test set fetched and verified."""
        store, task = self.observer.store, record.task
        spec = fetch_spec(store, task.spec_digest)
        manifest = fetch_manifest(store, reveal.manifest_digest)
        fault = manifest_fault(manifest, reveal.miner, task.task_id, record.number, spec)
        if fault is not None:
            raise _Faulty(Problem("manifest", fault))
        if manifest.model.bytes > spec.caps.model_bytes:
            detail = f"the model has {manifest.model.bytes} bytes, {spec.caps.model_bytes} allowed"
            raise _Faulty(Problem("caps", detail))
        if record.test_key is None:
            raise _Faulty(Problem("keys", "the test set was never opened"))
        model = self.scratch / f"{raw_cid(reveal.manifest_digest)}.safetensors"
        store.get_file(manifest.model.cid, model, manifest.model.bytes)
        folder = self.scratch / str(task.task_id)
        data = open_archive(store, spec, "test", record.test_key, task.key_hash, folder)
        name = f"round {record.number} {reveal.miner}"
        return ScoringRequest(id=name, spec=spec, data=data, model=model)
