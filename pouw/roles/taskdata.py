"""What a miner needs of a task: its spec, both archives sealed, and opened once their keys are out.

All of it lies in the miner's private home.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Set
from pathlib import Path
from typing import Final, Literal

from pouw.documents import Archive, TaskSpec
from pouw.errors import ContentError
from pouw.roles.base import Errands, Setup
from pouw.roles.content import (
    fetch_archive,
    holds_another,
    kept_spec,
    open_archive,
    sealed_path,
)
from pouw.storage.store import Store
from pouw.types import Task, TaskId

Kind = Literal["train", "test"]
KINDS: Final[tuple[Kind, Kind]] = ("train", "test")


class TaskData:
    """Specs and archives by task; what was here before a kill is not fetched again.

    Strangers serve them as slowly as they like, so no task waits for another's.
    """

    def __init__(self, setup: Setup, errands: Errands) -> None:
        self._setup = setup
        self._errands = errands
        self._specs: dict[bytes, TaskSpec] = {}
        self._endings: dict[TaskId, threading.Event] = {}

    def folder(self, task: Task) -> Path:
        """Where what belongs to the task lies."""
        return self._setup.home / "tasks" / str(task.task_id)

    def spec(self, task: Task) -> TaskSpec:
        """The task's spec, fetched once: after a kill it may be nowhere else to be had."""
        return self._spec(task, self._setup.store)

    def known_spec(self, task: Task) -> TaskSpec | None:
        """The task's spec where it was fetched already."""
        return self._specs.get(task.spec_digest)

    def fetch(self, task: Task) -> None:
        """Ask for the spec and the sealed archives."""
        spec = self.known_spec(task)
        for kind in KINDS:
            if spec is None or not self._is_here(task, spec, kind):
                self._fetch(task, kind)

    def opened(self, task: Task, kind: Kind, key: bytes) -> Path | None:
        """The opened archive; None while it is being opened, which this call asks for."""
        folder = self.folder(task)
        if (folder / kind).exists():
            return folder / kind
        if not self._errands.under_way(_fetching(task.task_id, kind)):
            self._ask(
                task,
                _opening(task.task_id, kind),
                lambda store: open_archive(
                    store, self._spec(task, store), kind, key, task.key_hash, folder
                ),
            )
        return None

    def keep_only(self, needed: Set[TaskId], over: Set[TaskId]) -> None:
        """Break off what is under way for other tasks than ``needed``; delete what is ``over``.

        What is merely not needed stays: a reorganisation may select it again.
        """
        for task_id in self._endings.keys() - needed:
            self._endings.pop(task_id).set()
        for folder in (self._setup.home / "tasks").glob("*"):
            if not folder.name.isdecimal():
                continue  # whatever else somebody put there
            task_id = TaskId(int(folder.name))
            if task_id in over and task_id not in needed and not self._is_busy(task_id):
                self._errands.prepare(f"let go of task {task_id}", _letting_go(folder))

    def _fetch(self, task: Task, kind: Kind) -> None:
        def fetch(store: Store) -> None:
            spec = self._spec(task, store)
            if not self._is_here(task, spec, kind):
                fetch_archive(store, _archive(spec, kind), self.folder(task))

        self._ask(task, _fetching(task.task_id, kind), fetch)

    def _ask(self, task: Task, name: str, call: Callable[[Store], object]) -> None:
        ending = self._endings.setdefault(task.task_id, threading.Event())
        store = self._setup.until(ending).store

        def run() -> None:
            try:
                call(store)
            except ContentError:
                if not ending.is_set():
                    raise

        self._errands.fetch(name, run)

    def _spec(self, task: Task, store: Store) -> TaskSpec:
        digest, folder = task.spec_digest, self.folder(task)
        if digest not in self._specs:
            if holds_another(folder, digest):  # which had this id before a reorganisation
                shutil.rmtree(folder, ignore_errors=True)
            self._specs[digest] = kept_spec(store, digest, folder)
        return self._specs[digest]

    def _is_here(self, task: Task, spec: TaskSpec, kind: Kind) -> bool:
        folder = self.folder(task)
        return (folder / kind).exists() or sealed_path(_archive(spec, kind), folder).exists()

    def _is_busy(self, task_id: TaskId) -> bool:
        names = (name(task_id, kind) for name in (_fetching, _opening) for kind in KINDS)
        return any(self._errands.under_way(name) for name in names)


def _letting_go(folder: Path) -> Callable[[], None]:
    return lambda: shutil.rmtree(folder, ignore_errors=True)


def _fetching(task_id: TaskId, kind: Kind) -> str:
    return f"fetch the {kind} archive of task {task_id}"


def _opening(task_id: TaskId, kind: Kind) -> str:
    return f"open the {kind} archive of task {task_id}"


def _archive(spec: TaskSpec, kind: Kind) -> Archive:
    return spec.train if kind == "train" else spec.test
