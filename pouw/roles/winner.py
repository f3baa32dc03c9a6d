"""The model that was paid for: which round of the confirmed history has it, and its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pouw.documents import Manifest, TaskSpec
from pouw.errors import ContentError, ContentNotFound, ContentTooLarge, LedgerError
from pouw.files import advice, atomic_file
from pouw.ledger.history import History, RevealRecord, RoundRecord, TaskState
from pouw.roles.content import fetch_manifest, fetch_spec
from pouw.roles.outcome import why_no_winner
from pouw.storage.store import Store
from pouw.types import RoundNumber, TaskId, Verdict

_STATES = {
    TaskState.POOLED: "waits in the pool",
    TaskState.SELECTED: "is selected, its round has not begun",
    TaskState.CANCELLED: "was cancelled",
    TaskState.DROPPED: "was dropped: its data key did not come in time",
}


@dataclass(frozen=True, slots=True)
class Won:
    """A round that has a winner: its record, and the reveal that won."""

    record: RoundRecord
    reveal: RevealRecord


@dataclass(frozen=True, slots=True)
class Bought:
    """What was paid for, on the disk."""

    spec: TaskSpec
    manifest: Manifest
    model_path: Path
    spec_path: Path
    manifest_path: Path


def round_of(history: History, task_id: TaskId) -> RoundNumber:
    """The round of a task; LedgerError, with what became of the task, where it has none."""
    task = history.tasks.get(task_id)
    if task is None:
        raise LedgerError(
            f"no confirmed block publishes a task {task_id}",
            hint="`pouw status` lists what is in the pool; --round takes the number of a round",
        )
    if task.round is None:
        raise LedgerError(f"task {task_id} has no winner: it {_STATES[task.state]}")
    return task.round


def winner_of(history: History, number: RoundNumber) -> Won:
    """The winner of a closed round; LedgerError, with how it ended, where it has none."""
    record = history.rounds.get(number)
    if record is None:
        raise LedgerError(
            f"no confirmed block begins a round {number}",
            hint="`pouw node headers` lists the rounds that are closed",
        )
    where = f"round {number} of task {record.task.task_id}"
    if not record.closed:
        raise LedgerError(
            f"{where} has no winner yet: no confirmed block closes it",
            hint="`pouw status` says what comes next, and when",
        )
    reveal = record.reveal_of(record.winner)
    if record.verdict is not Verdict.WINNER or reveal is None:
        opened, reveals = record.test_key is not None, len(record.reveals)
        why = why_no_winner(record.verdict, opened=opened, reveals=reveals)
        raise LedgerError(f"{where} ended without a winner: {why}")
    return Won(record, reveal)


def bring(store: Store, won: Won, folder: Path) -> Bought:
    """Write model, spec and manifest of the winner to ``folder``, each block verified.

    ContentError where one cannot be had or written, or is larger than the task allows.
    """
    spec = fetch_spec(store, won.record.task.spec_digest)
    manifest = fetch_manifest(store, won.reveal.manifest_digest)
    model = manifest.model
    if model.bytes > spec.caps.model_bytes:
        raise ContentTooLarge(
            f"the model has {model.bytes} bytes, the task allows {spec.caps.model_bytes}",
            cid=model.cid,
        )
    bought = Bought(
        spec,
        manifest,
        folder / "model.safetensors",
        folder / "spec.json",
        folder / "manifest.json",
    )
    try:
        for path, document in ((bought.spec_path, spec), (bought.manifest_path, manifest)):
            with atomic_file(path) as file:
                file.write(document.encode())
        store.get_file(model.cid, bought.model_path, model.bytes)
    except ContentNotFound as error:
        raise ContentNotFound(
            str(error),
            cid=error.cid,
            hint="name where its miner or an oracle serves it: --store "
            "pouw-store,http://MINER:8088",
        ) from error
    except OSError as error:
        raise ContentError(
            f"cannot write to {folder}: {error.strerror}", hint=advice(error)
        ) from error
    return bought
