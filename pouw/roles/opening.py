"""What the publisher of a round opened, or failed to: the spec and both archives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pouw.documents import TaskSpec
from pouw.errors import ContentError, ContentNotFound
from pouw.files import of_machine
from pouw.roles.base import Errands, Setup
from pouw.roles.content import UNUSABLE, fetch_archive, kept_spec, open_archive
from pouw.roles.evidence import NOT_TO_BE_HAD
from pouw.roles.feed import RoundEvents
from pouw.roles.provenance import Provenance
from pouw.types import RoundNumber, Task


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
class Openings:
    """Spec and archives by round, as one oracle found them.

    They are fetched as slowly as the publisher serves them, and no round waits for another's.
    """

    setup: Setup
    errands: Errands
    provenance: Provenance
    _fetched: set[RoundNumber] = field(default_factory=set)
    _opened: dict[RoundNumber, Opened] = field(default_factory=dict)
    _invalid: dict[RoundNumber, str] = field(default_factory=dict)
    _absent: dict[RoundNumber, str] = field(default_factory=dict)
    _endings: dict[RoundNumber, threading.Event] = field(default_factory=dict)

    def of(self, number: RoundNumber) -> Opened | None:
        """What a round is judged on; None until it is open."""
        return self._opened.get(number)

    def fault(self, number: RoundNumber, *, late: bool) -> str | None:
        """What makes the task of a round invalid.

        Only where it is ``late``, content that is missing is given up on.
        """
        invalid, absent = self._invalid.get(number), self._absent.get(number)
        if invalid is None and late and absent is not None:
            return NOT_TO_BE_HAD + absent
        return invalid

    def refuse(self, number: RoundNumber, reason: str) -> None:
        """Hold it against the task of a round that its test set cannot be used."""
        self._invalid[number] = reason
        self.setup.warn(f"the test set of round {number} is unusable: {reason}")

    def end_round(self, live: RoundNumber | None) -> None:
        """Break off what is fetched for another round than the ``live`` one."""
        for number in [number for number in self._endings if number != live]:
            self._endings.pop(number).set()

    def forget(self, live: RoundNumber | None) -> None:
        """Open anew what is asked for of other rounds than the ``live`` one.

        They may come back: a reorganisation takes back what closed a round.
        """
        self._fetched &= {live}
        for number in [number for number in self._opened if number != live]:
            del self._opened[number]

    def open(self, number: RoundNumber, task: Task, events: RoundEvents) -> None:
        """Open spec and both archives; what the publisher sealed wrongly makes the task invalid."""
        data_key, test_key = events.data_key, events.test_key
        if data_key is None or test_key is None:
            return
        folder = self.setup.home / "tasks" / str(task.task_id)
        ending = self._endings.setdefault(number, threading.Event())

        def fetch_all() -> None:
            store = self.setup.until(ending).store
            try:
                spec = kept_spec(store, task.spec_digest, folder)
                for kind, archive in (("train", spec.train), ("test", spec.test)):
                    if not (folder / kind).exists():
                        fetch_archive(store, archive, folder)
            except ContentError:
                if not ending.is_set():
                    raise
            else:
                self._fetched.add(number)

        def open_all() -> None:
            store = self.setup.until(ending).store
            spec = kept_spec(store, task.spec_digest, folder)
            open_archive(store, spec, "train", data_key, task.key_hash, folder)
            opened = open_archive(store, spec, "test", test_key, task.key_hash, folder)
            self._opened[number] = Opened(spec, opened)
            self.provenance.warm(spec)

        name = f"the data of task {task.task_id}"
        if number not in self._fetched:
            self.errands.fetch(f"fetch {name}", lambda: self._look(number, task, fetch_all))
        if number in self._fetched:
            self.errands.prepare(f"open {name}", lambda: self._look(number, task, open_all))

    def _look(self, number: RoundNumber, task: Task, look: Callable[[], None]) -> None:
        """Hold against the publisher what is his fault."""
        try:
            look()
        except UNUSABLE as error:
            if of_machine(error):
                raise
            self._invalid[number] = str(error)
            self.setup.warn(f"task {task.task_id} is invalid: {error}", task=task.task_id)
        except ContentNotFound as error:
            self._absent[number] = str(error)
            raise
        else:
            self._absent.pop(number, None)
