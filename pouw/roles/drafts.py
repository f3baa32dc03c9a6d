"""What a publisher has sealed: found again by what was asked for, not by a name."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from pouw.chain.arena import ArenaClient
from pouw.errors import JournalError
from pouw.journal import Journal
from pouw.ml.readers import read_folder
from pouw.roles.offer import Progress, PublishRequest
from pouw.types import TaskId

TASKS: Final = "tasks"
_NAMES: Final = "names of cases"
# What the transaction says or where the images lie; everything else goes into the spec.
_NOT_SEALED: Final = frozenset(
    {"folder", "reward_wei", "min_score_ppm", "first", "data_will_be_public", "proposal", "again"}
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A sealed task in the journal; ``task_id`` once it is known to be published.

    ``digest`` is the spec's, ``request`` what `request_digest` made of what was asked for,
    ``cids`` what is pinned for it. ``sent``: its transaction may be on its way, whatever became of
    the process that sent it. ``told``: whoever asked for the task knows of it; the latest block was
    ``told_at`` then. A draft of an older release has no ``request`` and counts as sent.
    """

    digest: bytes
    test_key: bytes
    title: str
    task_id: TaskId | None = None
    request: str | None = None
    folder: str | None = None
    sealed_at: int | None = None
    sent: bool = True
    told: bool = False
    told_at: int | None = None
    cids: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """When and from what it was sealed, for messages."""
        if self.sealed_at is None:
            return f"as {self.title!r}"
        date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.sealed_at))
        return f"on {date} from {self.folder}"

    def is_of(self, request: PublishRequest) -> bool:
        """Whether it was sealed from the same folder, whatever that held."""
        if self.folder is None:
            return self.title == request.title
        return self.folder == str(request.folder.resolve())


class Drafts:
    """The drafts of one journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def all(self) -> list[Draft]:
        """Every draft, published or not."""
        return [_draft(key, value) for key, value in self._journal.items(TASKS)]

    def unfinished(self) -> list[Draft]:
        """Those whose publication nobody was told of."""
        return [draft for draft in self.all() if not draft.told]

    def add(self, draft: Draft, names: Mapping[str, str] | None = None) -> None:
        """Keep a draft, and what its cases were called before they got neutral names."""
        value = {item.name: getattr(draft, item.name) for item in fields(draft)}
        del value["digest"]
        value |= {"test_key": draft.test_key.hex(), "cids": list(draft.cids)}
        with self._journal.transaction():
            self._journal.put(TASKS, draft.digest.hex(), value)
            self._journal.put(_NAMES, draft.digest.hex(), dict(names or {}))

    def names(self, draft: Draft) -> dict[str, str]:
        """What each case was called; none where an older release sealed it, names and all."""
        found: dict[str, str] = self._journal.get(_NAMES, draft.digest.hex(), {})
        return found

    def names_of(self, task_id: TaskId) -> dict[str, str]:
        """What each case of a task was called; JournalError where that is not known."""
        drafts = [draft for draft in self.all() if draft.task_id == task_id]
        for draft in sorted(drafts, key=lambda one: one.sealed_at or 0, reverse=True):
            if names := self.names(draft):
                return names
        raise JournalError(
            f"the journal {self._journal.path} has no names of cases of task {task_id}",
            hint="name the home that published it with --home",
        )

    def mark_sent(self, draft: Draft) -> None:
        """Its transaction is about to leave."""
        self._change(draft, sent=True)

    def mark_published(self, draft: Draft, task_id: TaskId) -> None:
        """It is that task."""
        self._change(draft, task_id=task_id)

    def mark_told(self, draft: Draft, task_id: TaskId, block: int) -> None:
        """It is that task, and whoever asked for it knows, as of the latest ``block``."""
        self._change(draft, task_id=task_id, told=True, told_at=block)

    def mark_gone(self, draft: Draft) -> None:
        """It is no task any more; publishing the same takes it up."""
        self._change(draft, task_id=None, told=False, told_at=None)

    def discard(self, draft: Draft) -> None:
        """Forget a draft, and the key that opens it, that was never sent."""
        if draft.sent:
            raise JournalError(f"what was sealed {draft.origin} may still be published")
        with self._journal.transaction():
            for space in (TASKS, _NAMES):
                self._journal.delete(space, draft.digest.hex())

    def _change(self, draft: Draft, **changes: Any) -> None:
        with self._journal.transaction():
            value = self._journal.get(TASKS, draft.digest.hex())
            if value is None:
                raise JournalError(f"the journal {self._journal.path} lost {draft.title!r}")
            self._journal.put(TASKS, draft.digest.hex(), {**value, **changes})


def _draft(key: str, value: dict[str, Any]) -> Draft:
    known = {
        "told": value["task_id"] is not None,
        **value,
        "test_key": bytes.fromhex(value["test_key"]),
        "cids": tuple(value.get("cids", ())),
    }
    return Draft(digest=bytes.fromhex(key), **known)


def request_digest(request: PublishRequest, arena: ArenaClient, say: Progress) -> str:
    """What two publications have in common that may share one sealed task, as hexadecimal digits.

    Covers chain, arena and account, whatever goes into the spec, and names, sizes and content of
    all files that are read from the folder. DataError where it is no data set.
    """
    proposal = request.proposal
    asked = {
        "chain_id": arena.chain_id,
        "arena": arena.address,
        "account": arena.sender.address,
        "options": {
            item.name: getattr(request, item.name)
            for item in fields(request)
            if item.name not in _NOT_SEALED
        },
        "proposal": proposal
        and [
            part.model_dump(mode="json")
            for part in (proposal.network, proposal.inference, proposal.caps)
        ],
        "files": _content(request.folder, say),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _content(folder: Path, say: Progress) -> list[tuple[str, int, str]]:
    """Name, bytes and sha256 of every image and label, and of the tables beside them."""
    dataset = read_folder(folder).dataset
    files = {path for path in dataset.root.iterdir() if path.is_file() and path.name[0] != "."}
    for case in (*dataset.train, *dataset.test):
        files.update(case.images)
        if case.label is not None:
            files.add(case.label)
    found = []
    for done, path in enumerate(sorted(files), start=1):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, hashlib.sha256)
            found.append((os.path.relpath(path, dataset.root), file.tell(), digest.hexdigest()))
        say("compare", done, len(files))
    return found
