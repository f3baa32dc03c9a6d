"""What a miner needs of a task: its spec, both archives sealed, and opened once their keys are out.

All of it lies in the miner's private home.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pouw.documents import TaskSpec
from pouw.roles.base import Errands, Setup
from pouw.roles.content import fetch_archive, kept_spec, open_archive
from pouw.types import Task

Kind = Literal["train", "test"]


class TaskData:
    """Specs and archives by task; what was here before a kill is not fetched again."""

    def __init__(self, setup: Setup, errands: Errands) -> None:
        self._setup = setup
        self._errands = errands
        self._specs: dict[bytes, TaskSpec] = {}

    def folder(self, task: Task) -> Path:
        """Where what belongs to the task lies."""
        return self._setup.home / "tasks" / str(task.task_id)

    def spec(self, task: Task) -> TaskSpec:
        """The task's spec, fetched once: after a kill it may be nowhere else to be had."""
        digest = task.spec_digest
        if digest not in self._specs:
            self._specs[digest] = kept_spec(self._setup.store, digest, self.folder(task))
        return self._specs[digest]

    def known_spec(self, task: Task) -> TaskSpec | None:
        """The task's spec where it was fetched already."""
        return self._specs.get(task.spec_digest)

    def fetch(self, task: Task) -> None:
        """Ask for the spec and the sealed archives."""
        folder = self.folder(task)

        def fetch() -> None:
            spec = self.spec(task)
            for kind, archive in (("train", spec.train), ("test", spec.test)):
                if not (folder / kind).exists():
                    fetch_archive(self._setup.store, archive, folder)

        self._errands.prepare(f"fetch the data of task {task.task_id}", fetch)

    def opened(self, task: Task, kind: Kind, key: bytes) -> Path | None:
        """The opened archive; None while it is being opened, which this call asks for."""
        folder = self.folder(task)
        if (folder / kind).exists():
            return folder / kind

        def open_it() -> None:
            open_archive(self._setup.store, self.spec(task), kind, key, task.key_hash, folder)

        self._errands.prepare(f"open the {kind} archive of task {task.task_id}", open_it)
        return None
