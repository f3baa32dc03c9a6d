"""What a miner's private home holds of a round: the folder of its training, and in it a store.

The store is a round's own, so both go together.
"""

from __future__ import annotations

from pathlib import Path

from pouw.documents import Positive
from pouw.files import atomic_file
from pouw.ml.requests import Record, Snapshot
from pouw.storage.local import LocalStore
from pouw.storage.store import Stored
from pouw.types import RoundNumber

_NOTES = "files"


class _Note(Record):
    """What became of a file in the private store."""

    cid: str
    bytes: Positive


def folder_of(home: Path, number: RoundNumber) -> Path:
    """Where the training of a round writes to."""
    return home / "rounds" / str(number)


def private_store(home: Path, number: RoundNumber) -> LocalStore:
    """Where what was trained lies in blocks until it is revealed."""
    return LocalStore(folder_of(home, number) / "content")


def kept(private: LocalStore, file: Path) -> Stored:
    """``file``, which a snapshot names, as it is in the private store from now on.

    It is read once: no training writes such a file again, and the note is gone with the store.
    """
    note = private.directory / _NOTES / f"{file.name}.json"
    if note.exists():
        known = _Note.parse(note.read_bytes())
        return Stored(known.cid, known.bytes)
    stored = private.put_file(file)
    with atomic_file(note) as out:
        out.write(_Note(cid=stored.cid, bytes=stored.bytes).line().encode())
    return stored


def keep_checkpoints(private: LocalStore, out: Path, snapshots: list[Snapshot]) -> None:
    """Bring to the private store what a manifest of these ``snapshots`` lists."""
    for snapshot in snapshots:
        kept(private, out / snapshot.checkpoint)
