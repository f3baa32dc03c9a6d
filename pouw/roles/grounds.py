"""Grounds that a committee had, or says it had, and that no score of a model shows."""

from __future__ import annotations

from pathlib import Path

from pouw.documents import Evidence
from pouw.errors import ContentError, ContentNotFound, DocumentError
from pouw.files import of_machine
from pouw.ledger.history import RoundRecord
from pouw.ml.data import load_case, read_dataset
from pouw.roles.base import Observer
from pouw.roles.content import UNUSABLE, fetch_evidence, fetch_spec, open_archive
from pouw.roles.evidence import NOT_TO_BE_HAD
from pouw.types import Address


def invalid_fault(observer: Observer, record: RoundRecord, folder: Path) -> str | None:
    """Why spec or archives of the round's task make it invalid, None where they are as they should.

    ContentNotFound where one of them is gone; other ContentErrors where this store is at fault.
    """
    store, task = observer.store, record.task
    try:
        spec = fetch_spec(store, task.spec_digest)
        open_archive(store, spec, "train", record.data_key, task.key_hash, folder)
        if record.test_key is None:
            return "its test set was never opened"
        data = open_archive(store, spec, "test", record.test_key, task.key_hash, folder)
        for file in read_dataset(data).test:
            load_case(file, len(spec.labels))
    except UNUSABLE as error:
        if of_machine(error):
            raise
        return str(error)
    return None


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
