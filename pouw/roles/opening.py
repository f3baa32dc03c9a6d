"""What the publisher of a round opened, or failed to: the spec and both archives."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pouw.documents import TaskSpec
from pouw.errors import ContentError, ContentNotFound
from pouw.files import of_machine
from pouw.roles.base import Errands, Setup
from pouw.roles.content import (
    UNUSABLE,
    fetch_archive,
    holds_another,
    kept_spec,
    open_archive,
)
from pouw.roles.evidence import NOT_TO_BE_HAD
from pouw.roles.feed import RoundEvents
from pouw.roles.patience import Patience
from pouw.roles.provenance import Provenance
from pouw.types import RoundNumber, Task, TaskId

_AWAY_SECONDS = 300  # without a look: this machine slept, or the chain could not be reached


@dataclass(frozen=True, slots=True)
class Opened:
    """The spec of a round's task, and the folder of its opened test archive."""

    spec: TaskSpec
    test: Path

    @property
    def train(self) -> Path:
        """The folder of the opened training archive."""
        return self.test.parent / "train"


@dataclass(slots=True)
class _Sought:
    """What is known of the spec and the sealed archives of one task.

    ``since`` when they have been asked for without a break, ``looked`` when that was last,
    ``missing_at`` when they last were missing, with ``answer``; all on the chain's clock.
    ``fault``: what makes the task invalid.
    """

    ending: threading.Event = field(default_factory=threading.Event)
    looked: int = 0
    since: int | None = None
    missing_at: int = 0
    answer: str = ""
    here: bool = False
    fault: str | None = None

    def given_up(self, patience: Patience) -> str | None:
        """Why they are not to be had although they were asked for in good time."""
        if self.here or self.since is None or not patience.is_over:
            return None
        if self.since <= patience.asked_by and self.missing_at >= patience.last_look:
            return NOT_TO_BE_HAD + self.answer
        if self.since <= patience.archives_by:
            waited = patience.now - self.since
            return f"{NOT_TO_BE_HAD}it was still arriving after {waited} s"
        return None


@dataclass(slots=True)
class Openings:
    """Spec and archives by task, as one oracle found them.

    They are fetched as slowly as the publisher serves them, and no task waits for another's.
    """

    setup: Setup
    errands: Errands
    provenance: Provenance
    _now: int = 0
    _sought: dict[tuple[TaskId, bytes], _Sought] = field(default_factory=dict)
    _opened: dict[RoundNumber, Opened] = field(default_factory=dict)
    _invalid: dict[RoundNumber, str] = field(default_factory=dict)

    def of(self, number: RoundNumber) -> Opened | None:
        """What a round is judged on; None until it is open."""
        return self._opened.get(number)

    def fault(self, number: RoundNumber, task: Task, patience: Patience) -> str | None:
        """What makes the task of a round invalid."""
        if number in self._invalid:
            return self._invalid[number]
        sought = self._of(task)
        return sought.fault or sought.given_up(patience)

    def refuse(self, number: RoundNumber, reason: str) -> None:
        """Hold it against the task of a round that its test set cannot be used."""
        self._invalid[number] = reason
        self.setup.warn(f"the test set of round {number} is unusable: {reason}")

    def seek(self, task: Task, now: int) -> None:
        """Ask for spec and sealed archives: before their keys are out, since they may come slowly.

        ``now`` on the chain's clock.
        """
        self._now = now
        sought = self._of(task)
        if sought.since is not None and now - sought.looked > _AWAY_SECONDS:
            sought.since = now  # nobody was slow meanwhile
        sought.looked = now
        if not sought.here and sought.fault is None:
            self._ask(self.errands.fetch, "fetch", task, lambda: self._fetch(task, sought))

    def open(self, number: RoundNumber, task: Task, events: RoundEvents) -> None:
        """Open the archives that are here and whose keys are out."""
        data_key, test_key = events.data_key, events.test_key
        sought, folder = self._of(task), self._folder(task)
        if data_key is None or not sought.here or sought.fault is not None:
            return
        if number in self._opened or (test_key is None and (folder / "train").exists()):
            return

        def open_all() -> None:
            store = self.setup.until(sought.ending).store
            spec = kept_spec(store, task.spec_digest, folder)
            open_archive(store, spec, "train", data_key, task.key_hash, folder)
            if test_key is not None:
                test = open_archive(store, spec, "test", test_key, task.key_hash, folder)
                self._opened[number] = Opened(spec, test)
                self.provenance.warm(spec)

        self._ask(self.errands.prepare, "open", task, open_all)

    def end_all_but(self, needed: Iterable[Task]) -> None:
        """Break off what is fetched for other tasks than the ``needed`` ones."""
        for key in self._sought.keys() - {_key(task) for task in needed}:
            self._sought.pop(key).ending.set()

    def forget(self, live: RoundNumber | None) -> None:
        """Open anew what is asked for of other rounds than the ``live`` one.

        They may come back: a reorganisation takes back what closed a round.
        """
        for number in [number for number in self._opened if number != live]:
            del self._opened[number]

    def _of(self, task: Task) -> _Sought:
        return self._sought.setdefault(_key(task), _Sought())

    def _folder(self, task: Task) -> Path:
        return self.setup.home / "tasks" / str(task.task_id)

    def _fetch(self, task: Task, sought: _Sought) -> None:
        store, folder = self.setup.until(sought.ending).store, self._folder(task)
        if holds_another(folder, task.spec_digest):  # which had this id before a reorganisation
            shutil.rmtree(folder, ignore_errors=True)
        # Not when it was asked for: that this machine has a lot to do is no fault of his.
        sought.since = self._now if sought.since is None else sought.since
        spec = kept_spec(store, task.spec_digest, folder)
        for kind, archive in (("train", spec.train), ("test", spec.test)):
            if not (folder / kind).exists():
                fetch_archive(store, archive, folder)
        sought.here = True

    def _ask(
        self,
        ask: Callable[[str, Callable[[], None]], None],
        verb: str,
        task: Task,
        call: Callable[[], None],
    ) -> None:
        """Ask for it, and hold against the publisher what is his fault."""
        sought = self._of(task)

        def look() -> None:
            try:
                call()
            except ContentNotFound as error:
                sought.missing_at, sought.answer = self._now, str(error)
                raise
            except UNUSABLE as error:
                if of_machine(error):
                    sought.since = None
                    raise
                sought.fault = str(error)
                self.setup.warn(f"task {task.task_id} is invalid: {error}", task=task.task_id)
            except ContentError:
                sought.since = None  # this machine's trouble: nobody was slow
                if not sought.ending.is_set():
                    raise

        ask(f"{verb} the data of task {task.task_id}", look)


def _key(task: Task) -> tuple[TaskId, bytes]:
    return task.task_id, task.spec_digest
