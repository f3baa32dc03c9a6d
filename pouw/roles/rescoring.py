"""Judging past rounds again as an oracle does, and training winners again: an audit's long part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pouw.documents import TaskSpec
from pouw.errors import (
    ContentError,
    ContentNotFound,
    DataError,
    DocumentError,
    LedgerError,
    PouwError,
    ProcessError,
    SealError,
)
from pouw.files import of_machine
from pouw.hashing import raw_cid
from pouw.ledger.history import RevealRecord, RoundRecord
from pouw.ml.requests import ScoringRequest
from pouw.roles.base import Observer
from pouw.roles.content import fetch_manifest, fetch_spec, open_archive
from pouw.roles.evidence import manifest_fault
from pouw.roles.grounds import invalid_excuse, invalid_fault, rejection_excuse, task_fault
from pouw.roles.processes import Crashed
from pouw.roles.replayer import Replayer
from pouw.roles.scorers import Scoring, scored
from pouw.roles.verification import verify_reveal
from pouw.types import TaskId, Verdict

MARGINAL_PPM = 1_000

Rescore = Literal["none", "winners", "all"]
"""Which models to judge again: none; what decided, that is a round's winner, or all that was
revealed where no claim was found true; or also whatever ranks above a winner."""


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
    """A revealed model cannot be judged; ``of_task``: its task is at fault, not the model."""

    def __init__(self, problem: Problem, *, of_task: bool = False) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.of_task = of_task


@dataclass(frozen=True, slots=True)
class Rescorer:
    """Fetches, verifies and scores revealed models below the folder ``scratch``.

    ``tell`` is told what takes long as it begins.
    """

    observer: Observer
    scratch: Path
    scoring: Scoring
    replayer: Replayer
    tell: Callable[[str], object] = lambda _what: None
    _usable: set[TaskId] = field(default_factory=set)

    def recheck(self, record: RoundRecord, rescore: Rescore) -> Rechecked:
        """Whether the verdict is what an honest committee finds."""
        if rescore == "none" or record.verdict is Verdict.NONE:
            return Rechecked()
        if record.verdict is Verdict.INVALID:
            return Rechecked(problems=self._invalid(record))
        problems: list[Problem] = []
        for reveal in record.reveals:
            if record.verdict is Verdict.WINNER and reveal.miner == record.winner:
                return self._winner(record, reveal, problems)
            if rescore == "all" or record.verdict is Verdict.NO_TRUE_CLAIM:
                problems += self._rejected(record, reveal)
        return Rechecked(problems=tuple(problems))

    def provenance(self, record: RoundRecord) -> tuple[Problem, ...]:
        """Whether the winner was trained as its manifest says, where its task asks for that."""
        won = record.reveal_of(record.winner)
        if record.verdict is not Verdict.WINNER or won is None:
            return ()
        try:
            spec = self._spec(record)
        except _Faulty as faulty:
            return (faulty.problem,)
        if spec.provenance.policy == "none":
            return ()
        found = self._training(record, won, None)
        return () if found is None else (found,)

    def _invalid(self, record: RoundRecord) -> tuple[Problem, ...]:
        """The committee found the task unusable: is it?"""
        try:
            fault = invalid_fault(self.observer, record, self._folder(record), self.scoring)
        except ContentNotFound as error:
            return (Problem("content", str(error), error.cid, recheckable=False),)
        except (ContentError, DocumentError, SealError, DataError, ProcessError) as error:
            return (Problem("content", str(error), recheckable=False),)
        if fault is not None:
            return ()
        excuse = invalid_excuse(self.observer, record)
        detail = "spec, keys and archives open and match"
        if excuse is not None:
            return (Problem("invalid", f"{detail} now; {excuse}", recheckable=False),)
        return (Problem("invalid", f"{detail}: the task is valid"),)

    def _winner(
        self, record: RoundRecord, reveal: RevealRecord, problems: list[Problem]
    ) -> Rechecked:
        try:
            spec = self._spec(record)
            score = self._score(record, reveal, spec, None)
        except _Faulty as faulty:
            return Rechecked(problems=(*problems, faulty.problem))
        assert score is not None
        short = reveal.claim - score
        if short >= MARGINAL_PPM:
            problems.append(Problem("score", f"claimed {reveal.claim}, measured {score}"))
        unlinked = self._unlinked(record, reveal, spec)
        if unlinked is not None:
            problems.append(unlinked)
        return Rechecked(score, 0 < short < MARGINAL_PPM, tuple(problems))

    def _rejected(self, record: RoundRecord, reveal: RevealRecord) -> list[Problem]:
        """A reveal was rejected: is its claim false, or its content at fault?"""
        try:
            spec = self._spec(record)
            score = self._score(record, reveal, spec, reveal.claim)
        except _Faulty as faulty:
            # A model at fault was rejected rightly; one that is gone may have been, too.
            wrong = faulty.of_task or not faulty.problem.recheckable
            return [faulty.problem] if wrong else []
        if score is None or score < reveal.claim:
            return []
        unlinked = self._unlinked(record, reveal, spec)
        if unlinked is not None:
            return [] if unlinked.recheckable else [unlinked]
        detail = f"{reveal.miner} was rejected, claimed {reveal.claim}, measures {score}"
        rule = "highest true claim"
        if score < reveal.claim + MARGINAL_PPM:
            detail += ": true by less than other hardware explains"
            return [Problem(rule, detail, recheckable=False)]
        excuse = rejection_excuse(self.observer, record, reveal.miner)
        if excuse is not None:
            return [Problem(rule, f"{detail}; {excuse}", recheckable=False)]
        return [Problem(rule, detail)]

    def _spec(self, record: RoundRecord) -> TaskSpec:
        try:
            return fetch_spec(self.observer.store, record.task.spec_digest)
        except (ContentError, DocumentError) as error:
            raise _of_task(error) from error

    def _unlinked(
        self, record: RoundRecord, reveal: RevealRecord, spec: TaskSpec
    ) -> Problem | None:
        """What is wrong with the checkpoints, where the task asks for any: that decides, too."""
        if spec.provenance.policy == "none":
            return None
        return self._training(record, reveal, 0)

    def _training(
        self, record: RoundRecord, reveal: RevealRecord, segments: int | None
    ) -> Problem | None:
        """What is wrong with links and segments (None: as many as the spec asks for)."""
        self.tell(f"round {record.number}: check the training of {reveal.miner}")
        try:
            found = verify_reveal(self.observer, record, reveal, self.replayer, segments)
        except ContentNotFound as error:
            return Problem("content", str(error), error.cid, recheckable=False)
        except (ContentError, DocumentError, SealError, DataError, LedgerError) as error:
            return Problem("provenance", str(error))
        except ProcessError as error:
            return Problem("provenance", str(error), recheckable=False)
        if found.exit_code == 0:
            return None
        return Problem("provenance", found.summary, recheckable=found.exit_code == 2)

    def _score(
        self, record: RoundRecord, reveal: RevealRecord, spec: TaskSpec, claim_ppm: int | None
    ) -> int | None:
        """This node's score of a revealed model in ppm; None: ``claim_ppm`` is out of reach."""
        self.tell(f"round {record.number}: fetch the model of {reveal.miner}")
        request = self._request(record, reveal, spec, claim_ppm)
        self.tell(f"round {record.number}: score the model of {reveal.miner}")
        try:
            answer = scored(self.scoring, request)
        except ProcessError as error:
            crashed = isinstance(error, Crashed)
            raise _Faulty(Problem("score", str(error), recheckable=crashed)) from error
        finally:
            if request.model is not None:
                request.model.unlink(missing_ok=True)
        detail = f"{answer.reason}: {answer.detail}"
        if answer.reason == "data":
            raise _Faulty(Problem("task", detail), of_task=True)
        if answer.reason not in ("score", "bound"):
            fault = answer.reason in ("caps", "model")
            raise _Faulty(Problem("score", detail, recheckable=fault))
        return answer.score_ppm

    def _request(
        self, record: RoundRecord, reveal: RevealRecord, spec: TaskSpec, claim_ppm: int | None
    ) -> ScoringRequest:
        """Model and test set fetched and verified."""
        data = self._test_set(record, spec)
        model = self.scratch / f"{raw_cid(reveal.manifest_digest)}.safetensors"
        try:
            self._fetch_model(record, reveal, spec, model)
        except ContentNotFound as error:
            raise _Faulty(Problem("content", str(error), error.cid, recheckable=False)) from error
        except ContentError as error:
            raise _Faulty(Problem("content", str(error), error.cid)) from error
        except DocumentError as error:
            raise _Faulty(Problem("content", str(error))) from error
        name = f"round {record.number} {reveal.miner}"
        return ScoringRequest(id=name, spec=spec, data=data, model=model, claim_ppm=claim_ppm)

    def _test_set(self, record: RoundRecord, spec: TaskSpec) -> Path:
        key, key_hash = record.test_key, record.task.key_hash
        if key is None:
            raise _Faulty(Problem("keys", "the test set was never opened"), of_task=True)
        try:
            folder = self._folder(record)
            data = open_archive(self.observer.store, spec, "test", key, key_hash, folder)
        except (ContentError, SealError, DataError) as error:
            raise _of_task(error) from error
        if record.task.task_id not in self._usable:
            try:
                fault = task_fault(self.scoring, spec, data)
            except ProcessError as error:
                unknown = Problem("task", str(error), recheckable=False)
                raise _Faulty(unknown, of_task=True) from error
            if fault is not None:
                raise _Faulty(Problem("task", fault), of_task=True)
            self._usable.add(record.task.task_id)
        return data

    def _fetch_model(
        self, record: RoundRecord, reveal: RevealRecord, spec: TaskSpec, model: Path
    ) -> None:
        manifest = fetch_manifest(self.observer.store, reveal.manifest_digest)
        task_id = record.task.task_id
        fault = manifest_fault(manifest, reveal.miner, task_id, record.number, spec)
        if fault is not None:
            raise _Faulty(Problem("manifest", fault))
        if manifest.model.bytes > spec.caps.model_bytes:
            detail = f"the model has {manifest.model.bytes} bytes, {spec.caps.model_bytes} allowed"
            raise _Faulty(Problem("caps", detail))
        self.observer.store.get_file(manifest.model.cid, model, manifest.model.bytes)

    def _folder(self, record: RoundRecord) -> Path:
        return self.scratch / str(record.task.task_id)


def _of_task(error: PouwError) -> _Faulty:
    """What is wrong with spec or archives: the verdict should have been `Invalid`, unless gone."""
    cid = error.cid if isinstance(error, ContentError) else None
    if isinstance(error, ContentNotFound):
        return _Faulty(Problem("content", str(error), cid, recheckable=False), of_task=True)
    problem = Problem("content", str(error), cid, recheckable=not of_machine(error))
    return _Faulty(problem, of_task=True)
