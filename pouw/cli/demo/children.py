"""The processes of the demo: each in a group of its own, its log in a file, all ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pouw.errors import ProcessError

_END_SECONDS: Final = 10.0
_TAIL_LINES: Final = 15
_TAIL_BYTES: Final = 4096


class ChildEnded(ProcessError):
    """A process of the demo ended; ``lines`` are the last that it logged."""

    def __init__(self, message: str, lines: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Child:
    """A process and where it logs; a ``lasting`` one runs until it is ended."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    lasting: bool = True


class Children:
    """Starts processes of this package; leaving the block ends every one, with its own children.

    Standard input of each stays open as long as this process lives: roles end when it closes, so
    that nothing is left behind even if this process is killed.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        niceness: int = 0,
        lasting: bool = True,
    ) -> Child:
        """Start ``command`` and keep it in sight; ProcessError where it cannot start."""
        log = self._logs / f"{name}.log"
        try:
            with log.open("ab") as out:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=self._environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise ProcessError(f"{name} cannot be started: {error.strerror}") from error
        child = Child(name, process, log, lasting)
        self._children.append(child)
        if niceness:
            own = os.getpriority(os.PRIO_PROCESS, 0)
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, min(19, own + niceness))
        return child

    def check(self) -> None:
        """ChildEnded, with the last lines of its log, where a process has ended."""
        for child in self._children:
            code = child.process.poll()
            if code is not None and (child.lasting or code):
                raise ended(child, code)

    def run(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        cwd: Path | None = None,
        accept: Sequence[int] = (0,),
        timeout_seconds: float = 120.0,
    ) -> tuple[int, str]:
        """Run ``command`` to its end: exit code and standard output; the rest goes to its log."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=cwd,
                env={**self._environment, **(environment or {})},
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        try:
            out, _ = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"{name} took more than {timeout_seconds:.0f} seconds") from error
        self._children.remove(child)
        if process.returncode not in accept:
            raise ended(child, process.returncode)
        return process.returncode, out.decode()

    def end(self, *names: str) -> None:
        """End the processes with these names."""
        self._end([child for child in self._children if child.name in names])

    def close(self) -> None:
        """End every process and what it started: by SIGTERM, after ten seconds by SIGKILL.

        Another Ctrl-C meanwhile changes nothing: nobody may be left behind.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        try:
            self._end(list(self._children))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, children: list[Child]) -> None:
        for child in children:
            # Only the process itself: it ends its own children in order.
            if child.process.poll() is None:
                child.process.terminate()
        limit = time.monotonic() + _END_SECONDS
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, limit - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
            for pipe in (child.process.stdin, child.process.stdout):
                if pipe is not None:
                    pipe.close()
            if child in self._children:
                self._children.remove(child)


def pouw(*arguments: str) -> list[str]:
    """The command line of ``pouw ARGUMENTS`` in this very environment."""
    return [sys.executable, "-m", "pouw.cli.main", *arguments]


def ended(child: Child, code: int) -> ChildEnded:
    """What to say of a process that ended."""
    how = f"signal {-code}" if code < 0 else f"status {code}"
    return ChildEnded(
        f"{child.name} ended with {how}",
        tail(child.log),
        hint=f"its last lines are above, the whole log is {child.log}",
    )


def tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-_TAIL_LINES:]) or "(it said nothing)"
