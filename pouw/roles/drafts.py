"""What a publisher has sealed: found again by what was asked for, not by a name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from pouw.errors import JournalError
from pouw.journal import Journal
from pouw.roles.offer import PublishRequest
from pouw.types import TaskId

TASKS: Final = "tasks"
IMAGES: Final = "images"  # apart, since a role reads its tasks at every look
NAMES: Final = "names of cases"


@dataclass(frozen=True, slots=True)
class Draft:
    """A sealed task in the journal; ``task_id`` once it is known to be published.

    ``digest`` is the spec's, ``request`` that of what was `Asked` for, ``cids`` what is pinned for
    it. ``sent``: its transaction may be on its way, whatever became of the process that sent it.
    ``told``: whoever asked for the task knows of it; the latest block was ``told_at`` then.
    ``key_sent``: its data key may be out, whatever became of that transaction. A draft of an older
    release has no images, or not even a ``request`` and counts as sent.
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
    key_sent: bool = False

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

    def add(
        self, draft: Draft, images: Sequence[str], names: Mapping[str, str] | None = None
    ) -> None:
        """Keep a draft, the digests of its images, and what its cases were called before."""
        value = {item.name: getattr(draft, item.name) for item in fields(draft)}
        del value["digest"]
        value |= {"test_key": draft.test_key.hex(), "cids": list(draft.cids)}
        with self._journal.transaction():
            self._journal.put(TASKS, draft.digest.hex(), value)
            self._journal.put(IMAGES, draft.digest.hex(), list(images))
            self._journal.put(NAMES, draft.digest.hex(), dict(names or {}))

    def images(self, draft: Draft) -> frozenset[str] | None:
        """The digests of the images in it; None where an older release kept none."""
        kept = self._journal.get(IMAGES, draft.digest.hex())
        return None if kept is None else frozenset(kept)

    def names(self, draft: Draft) -> dict[str, str]:
        """What each case was called; none where an older release sealed it, names and all."""
        found: dict[str, str] = self._journal.get(NAMES, draft.digest.hex(), {})
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

    def mark_key_sent(self, draft: Draft) -> None:
        """Its data key is about to leave."""
        self._change(draft, key_sent=True)

    def mark_gone(self, draft: Draft) -> None:
        """It is no task any more; publishing the same takes it up."""
        self._change(draft, task_id=None, told=False, told_at=None)

    def discard(self, draft: Draft) -> bool:
        """Forget a draft, and the key that opens it, unless it was sent; whether that was done.

        What another process has noted since counts.
        """
        key = draft.digest.hex()
        with self._journal.transaction():
            kept = self._journal.get(TASKS, key)
            if kept is None or kept.get("sent", True):
                return False
            self._journal.delete(TASKS, key)
            self._journal.delete(IMAGES, key)
            self._journal.delete(NAMES, key)
        return True

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
