"""The private folder of one training: what survives kill -9, and in what order it is written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from pouw.errors import ConfigError, ProcessError
from pouw.files import TEMPORARY_SUFFIX, atomic_file
from pouw.hashing import canonical_json, sha256
from pouw.ml.requests import (
    FINISHED_FILE,
    PROGRESS_FILE,
    RUN_FILE,
    SNAPSHOTS_FILE,
    Engine,
    Finished,
    Progress,
    Run,
    Snapshot,
    TrainingRequest,
)

_LOCK_FILE = "lock"
_LOCK_PAUSE_SECONDS = 0.05
_PROGRESS_SECONDS = 0.5


def request_digest(request: TrainingRequest) -> str:
    """What makes two requests the same training: the spec, the seed, settings and engine."""
    document = {
        "spec": request.spec.model_dump(mode="json", by_alias=True),
        "seed": request.seed,
        "settings": request.settings.model_dump(mode="json"),
        "engine": request.engine.model_dump(mode="json"),
        "max_steps": request.max_steps,
    }
    return "0x" + sha256(canonical_json(document)).hex()


class RunFolder:
    """Snapshots, progress and the end of a training, in ``request.out``.

    A snapshot's line is appended only after its files were renamed into place and synced, so a
    line vouches for its files; a torn last line is cut off when the folder is opened again.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._last_progress = -_PROGRESS_SECONDS

    @contextlib.contextmanager
    def locked(self, give_up_ms: int, clock_ms: Callable[[], float]) -> Iterator[None]:
        """Keep other trainings out, waiting for one that is just ending; ProcessError if it stays.

        The lock ends with the process, however it ends.
        """
        with (self.path / _LOCK_FILE).open("ab") as file:
            while not _take(file):
                if clock_ms() >= give_up_ms:
                    raise ProcessError(f"another training is at work in {self.path}")
                time.sleep(_LOCK_PAUSE_SECONDS)
            yield

    def finished(self) -> Finished | None:
        """How the training ended, if it did."""
        file = self.path / FINISHED_FILE
        return Finished.parse(file.read_bytes()) if file.exists() else None

    def begin(
        self, request: TrainingRequest, engine: Engine, now_ms: int, software: str, device: str
    ) -> Run:
        """Note the (first) start; ConfigError where the folder belongs to another request."""
        file = self.path / RUN_FILE
        digest, started = request_digest(request), now_ms
        if file.exists():
            before = Run.parse(file.read_bytes())
            if before.request_digest != digest:
                raise ConfigError(
                    f"{self.path} holds the training of another request",
                    hint="give every training an out folder of its own",
                )
            started = before.started_at_ms
        run = Run(
            started_at_ms=started,
            request_digest=digest,
            software=software,
            device=device,
            engine=engine,
        )
        self._write(RUN_FILE, run.line())
        (self.path / FINISHED_FILE).unlink(missing_ok=True)
        return run

    def snapshots(self) -> list[Snapshot]:
        """The complete snapshots, oldest first; what a crash left half done is removed."""
        file = self.path / SNAPSHOTS_FILE
        text = file.read_bytes() if file.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            with file.open("r+b") as opened:
                opened.truncate(len(whole))
        snapshots = [Snapshot.parse(line) for line in whole.splitlines()]
        named = {name for snapshot in snapshots for name in (snapshot.model, snapshot.checkpoint)}
        for found in self.path.iterdir():
            unnamed = found.suffix == ".safetensors" and found.name not in named
            if unnamed or found.suffix == TEMPORARY_SUFFIX:
                found.unlink()
        return snapshots

    def add(self, snapshot: Snapshot) -> None:
        """Append a snapshot whose files are complete."""
        self._append(SNAPSHOTS_FILE, snapshot.line(), sync=True)

    def drop_last(self) -> list[Snapshot]:
        """Take back the last snapshot, files and line; those before it."""
        text = "".join(snapshot.line() + "\n" for snapshot in self.snapshots()[:-1])
        with atomic_file(self.path / SNAPSHOTS_FILE) as file:
            file.write(text.encode())
        return self.snapshots()

    def note(self, progress: Progress, now_seconds: float) -> None:
        """Append a line of progress, unless the last is less than half a second old."""
        if now_seconds - self._last_progress >= _PROGRESS_SECONDS:
            self._last_progress = now_seconds
            self._append(PROGRESS_FILE, progress.line(), sync=False)

    def finish(self, finished: Finished) -> None:
        """Say that training ended in order."""
        self._write(FINISHED_FILE, finished.line())

    def _append(self, name: str, line: str, *, sync: bool) -> None:
        with (self.path / name).open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())

    def _write(self, name: str, line: str) -> None:
        with atomic_file(self.path / name) as file:
            file.write(line.encode() + b"\n")


def _take(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
