"""What a miner's private home holds of a round: the folder of its training, and in it a store.

The store is a round's own, so both go together. Every checkpoint lies there once: in the store as
soon as its snapshot is complete, and as a file only while training may go on from it, which is from
the last, or the one before where that is damaged.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pouw.documents import Positive
from pouw.files import atomic_file
from pouw.hashing import sha256
from pouw.ml.requests import Record, Snapshot
from pouw.storage.local import LocalStore
from pouw.storage.store import Stored
from pouw.types import RoundNumber, Task

_NOTES: Final = "files"
_RECORDS: Final = 10  # rounds whose logs and curves stay
_LINE_DIGITS: Final = 16
_AS_FILES: Final = 2
_WEIGHTS: Final = "*.safetensors"
_keeping = threading.Lock()


class _Note(Record):
    """What became of a file in the private store."""

    cid: str
    bytes: Positive


def folder_of(home: Path, number: RoundNumber) -> Path:
    """Where the training of a round writes to."""
    return home / "rounds" / str(number)


def rounds_in(home: Path) -> list[RoundNumber]:
    """The rounds that ``home`` holds anything of, oldest first."""
    names = (folder.name for folder in (home / "rounds").glob("*"))
    return sorted(RoundNumber(int(name)) for name in names if name.isdecimal())


def private_store(home: Path, number: RoundNumber) -> LocalStore:
    """Where what was trained lies in blocks until it is revealed."""
    return LocalStore(_content(home, number))


def kept(private: LocalStore, file: Path, snapshot: Snapshot) -> Stored:
    """``file``, which ``snapshot`` names, as it is in the private store from now on.

    It is read once, and the note is gone with the store. A training that took the snapshot's line
    back may write a file of that name again: with another line, for which the note is not.
    """
    line = sha256(snapshot.line().encode()).hex()
    note = private.directory / _NOTES / f"{file.name}.{line[:_LINE_DIGITS]}.json"
    with _keeping:  # or a commitment might miss the file that was taken to the store just now
        if note.exists():
            known = _Note.parse(note.read_bytes())
            return Stored(known.cid, known.bytes)
        stored = private.put_file(file)
        with atomic_file(note) as out:
            out.write(_Note(cid=stored.cid, bytes=stored.bytes).line().encode())
        return stored


def move_checkpoints(private: LocalStore | None, out: Path, snapshots: Sequence[Snapshot]) -> None:
    """Bring the checkpoints of ``snapshots`` from ``out`` to the private store, if there is one.

    As files only the last two stay: training goes on from the last that is not damaged.
    """
    for snapshot in snapshots:
        file = out / snapshot.checkpoint
        if not file.exists():
            continue
        if private:
            kept(private, file, snapshot)
        if snapshot not in snapshots[-_AS_FILES:]:
            file.unlink()


def outdone(snapshots: Sequence[Snapshot], task: Task) -> list[Snapshot]:
    """Those that nobody commits to any more: a later one validated at least as well.

    On as many cases, for only those are compared with each other. Where the earliest commitment
    wins, the first that promises the minimum is none of them.
    """
    promising = (one for one in snapshots if one.validation_dice_ppm >= task.min_score)
    first = next(promising, None) if task.first else None
    found, best = list[Snapshot](), dict[int, int]()
    for snapshot in reversed(snapshots):
        dice_ppm, cases = snapshot.validation_dice_ppm, snapshot.validation_cases
        if dice_ppm <= best.get(cases, -1) and snapshot is not first:
            found.append(snapshot)
        best[cases] = max(dice_ppm, best.get(cases, -1))
    return found


def delete_models(out: Path, snapshots: Iterable[Snapshot]) -> None:
    """Delete the models of ``snapshots``."""
    for snapshot in snapshots:
        (out / snapshot.model).unlink(missing_ok=True)


def is_spent(home: Path, number: RoundNumber) -> bool:
    """Whether ``let_go`` has anything to do for a round that is over."""
    weights = any(folder_of(home, number).glob(_WEIGHTS))
    return weights or _content(home, number).exists() or _is_old(home, number)


def let_go(home: Path, number: RoundNumber) -> None:
    """Delete the weights of a round that is over; of all but the last ten its records, too."""
    shutil.rmtree(_content(home, number), ignore_errors=True)
    for file in folder_of(home, number).glob(_WEIGHTS):
        file.unlink(missing_ok=True)
    if _is_old(home, number):
        shutil.rmtree(folder_of(home, number), ignore_errors=True)


def _is_old(home: Path, number: RoundNumber) -> bool:
    return number in rounds_in(home)[:-_RECORDS]


def _content(home: Path, number: RoundNumber) -> Path:
    return folder_of(home, number) / "content"
