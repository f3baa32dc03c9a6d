"""Grounds that a committee had, or says it had, and that no score of a model shows."""

from __future__ import annotations

from pathlib import Path

from pouw.documents import Evidence, TaskSpec
from pouw.errors import ContentError, ContentNotFound, DocumentError, ProcessError
from pouw.files import of_machine
from pouw.ledger.history import RoundRecord
from pouw.ml.requests import ScoringRequest
from pouw.roles.base import Observer
from pouw.roles.content import UNUSABLE, fetch_evidence, fetch_spec, open_archive
from pouw.roles.evidence import NOT_TO_BE_HAD
from pouw.roles.processes import Crashed
from pouw.roles.scorers import Scoring, scored
from pouw.types import Address


def task_fault(scoring: Scoring, spec: TaskSpec, data: Path) -> str | None:
    """Why nobody can be judged on a task and its opened test set ``data``, None where one can.

    What an oracle asks before it scores any model. ProcessError where this machine cannot tell.
    """
    request = ScoringRequest(id="the task", spec=spec, data=data, model=None)
    try:
        answer = scored(scoring, request)
    except Crashed as error:
        return str(error)
    if answer.reason not in ("usable", "data"):
        raise ProcessError(f"{answer.reason}: {answer.detail}")
    return answer.detail if answer.reason == "data" else None


def invalid_fault(
    observer: Observer, record: RoundRecord, folder: Path, scoring: Scoring
) -> str | None:
    """Why spec or archives of the round's task make it invalid, None where they are as they should.

    ContentNotFound where one of them is gone; other ContentErrors where this store is at fault,
    ProcessError where this machine is.
    """
    store, task = observer.store, record.task
    try:
        spec = fetch_spec(store, task.spec_digest)
        open_archive(store, spec, "train", record.data_key, task.key_hash, folder)
        if record.test_key is None:
            return "its test set was never opened"
        data = open_archive(store, spec, "test", record.test_key, task.key_hash, folder)
        return task_fault(scoring, spec, data)
    except UNUSABLE as error:
        if of_machine(error):
            raise
        return str(error)


def invalid_excuse(observer: Observer, record: RoundRecord) -> str | None:
    """Why the committee may have found a task invalid whose content is all there now."""
    evidence = _evidence(observer, record)
    if isinstance(evidence, str):
        return evidence
    if evidence is not None and evidence.invalid_reason.startswith(NOT_TO_BE_HAD):
        return "the committee says that its content was " + evidence.invalid_reason
    return None


def rejection_excuse(observer: Observer, record: RoundRecord, miner: Address) -> str | None:
    """Why the committee may have rejected a claim that holds now: content that it could not have.

    That cannot be rechecked; what cannot be had of its evidence cannot either.
    """
    evidence = _evidence(observer, record)
    if isinstance(evidence, str):
        return evidence
    for judged in evidence.judged if evidence is not None else ():
        if judged.miner == miner and judged.reason == "unavailable":
            return f"the committee says that its content was {judged.detail}"
    return None


def _evidence(observer: Observer, record: RoundRecord) -> Evidence | str | None:
    """What decided the round: the document, None where there is none, or why it is not here."""
    try:
        return fetch_evidence(observer.store, record.evidence_digest)
    except ContentNotFound:
        return "the committee's evidence is gone"
    except (ContentError, DocumentError):
        return None
