"""The loop of a role: one ``run_once()`` a second until a signal ends it.

What the role does is a line on standard error whenever it changes, and after every look the file
``status.json`` in its home, for ``pouw miner status`` and whoever supervises. Errors that pass by
themselves (an endpoint that is down) are told once and tried again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import click

from pouw.cli.crash import write_traceback
from pouw.errors import ChainUnavailable, ConfigError, ContentError, PouwError

if TYPE_CHECKING:
    from pouw.roles.base import Notice, Status

STATUS_FILE: Final = "status.json"
_LOCK_FILE: Final = "running.lock"
_LONGEST_PAUSE_SECONDS: Final = 15.0

Built = TypeVar("Built")


class Role(Protocol):
    """What the loop drives."""

    def run_once(self) -> Status:
        """Look, decide, act, within a second."""
        ...

    def finish(self) -> None:
        """Wait for what runs beside it."""
        ...

    def close(self) -> None:
        """End what runs beside it."""
        ...


class Ending:
    """Set by SIGINT or SIGTERM, or when standard input ends where that was asked for.

    A pipe, not a ``threading.Event``: a signal handler may set it whatever the main thread holds.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._set = False

    def set(self) -> None:
        """Wake whoever waits; for good."""
        if not self._set:
            self._set = True
            os.write(self._write, b"e")

    def is_set(self) -> bool:
        """Whether it is time to end."""
        return self._set

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until it is time to end, or so long; whether it is."""
        select.select([self._read], [], [], timeout_seconds)
        return self._set

    def watch_stdin(self) -> None:
        """End when whoever holds the other side of standard input is gone."""
        threading.Thread(target=self._read_to_end, daemon=True).start()

    def _read_to_end(self) -> None:
        descriptor = sys.stdin.fileno()
        while os.read(descriptor, 4096):
            pass
        self.set()


@contextmanager
def ending_by_signals() -> Iterator[Ending]:
    """An ``Ending`` that the first SIGINT or SIGTERM sets; a second SIGINT interrupts at once."""
    ending = Ending()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(number: int, _frame: Any) -> None:
        if ending.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        ending.set()

    for number in before:
        signal.signal(number, end)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_notice(notice: Notice) -> None:
    """A notice as a line on standard error, with its hint."""
    mark = "" if notice.level == "info" else "warning: "
    _say(f"{mark}{' '.join(notice.text.split())}")
    if hint := notice.data.get("hint"):
        _say(f"hint: {hint}")


@contextmanager
def _running(home: Path) -> Iterator[None]:
    """Let ``is_running`` know: the lock goes with the process, whatever ends that.

    Roles that share a home share it.
    """
    descriptor = os.open(home / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _alone(home: Path, kind: str) -> Iterator[None]:
    """Warn where another process plays the same role from this home: each would do all of it."""
    descriptor = os.open(home / f"running-{kind}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(f"warning: another process plays this role from {home} already; end one")
    try:
        yield
    finally:
        os.close(descriptor)


def is_running(home: Path) -> bool:
    """Whether a process drives a role of ``home`` now."""
    try:
        descriptor = os.open(home / _LOCK_FILE, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def run_role(
    role: Role,
    home: Path,
    ending: Ending,
    *,
    poll_seconds: float,
    once: bool,
    block: Callable[[], int | None] = lambda: None,
) -> Status | None:
    """Drive ``role`` until ``ending``; its last status. ``block``: the latest that it was told of.

    A ConfigError ends it and is raised: that needs a person. A bug leaves its traceback in ``home``
    and the loop goes on: a publisher who stops at a deadline loses his bond. With ``once`` every
    error is raised.
    """
    speaker = _Speaker(home)
    pause, status = poll_seconds, None
    kind = type(role).__name__.lower()
    with contextlib.closing(role), _running(home), _alone(home, kind):
        while not ending.is_set():
            begun = time.monotonic()
            try:
                status = role.run_once()
                speaker.status(status, block())
                pause = poll_seconds
            except ConfigError:
                raise
            except PouwError as error:
                if once:
                    raise
                speaker.error(str(error), error.hint)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
            except Exception as error:  # the outermost loop of a daemon: it logs and goes on
                if once:
                    raise
                speaker.bug(error)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
            if once:
                role.finish()
                break
            ending.wait(max(0.05, pause - (time.monotonic() - begun)))
    if status is not None and not once:
        _say(f"ended; still to come: {status.next}")
    return status


def begin(
    build: Callable[[], Built], home: Path, ending: Ending, poll_seconds: float
) -> Built | None:
    """What ``build`` makes, tried again until chain and store answer; None if it ends before.

    After a reboot they may come up later than the role, and a key must not wait for a person.
    """
    speaker, pause = _Speaker(home), poll_seconds
    while not ending.is_set():
        try:
            return build()
        except (ChainUnavailable, ContentError) as error:
            speaker.error(str(error), error.hint)
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
            ending.wait(pause)
    return None


class _Speaker:
    """Says what changed, and only that; keeps what was seen, and when, in the home."""

    def __init__(self, home: Path) -> None:
        self._file = home / STATUS_FILE
        self._said = ""
        self._document: dict[str, Any] = {"block": None, "block_at_ms": None}

    def status(self, status: Status, block: int | None) -> None:
        line = f"{status.phase}: {status.doing}"
        if line != self._said:
            self._said = line
            _say(f"{line}; {status.next}")
        now_ms, before = int(time.time() * 1000), self._document
        came_ms = before["block_at_ms"] if block == before["block"] else now_ms
        seen = {"looked_at_ms": now_ms, "block": block, "block_at_ms": came_ms, "error": None}
        self._keep(asdict(status) | seen)

    def _keep(self, document: dict[str, Any]) -> None:
        """Not flushed to the disk: after a crash the role says anew what it does."""
        self._document = document
        fresh = self._file.with_suffix(".part")
        with contextlib.suppress(OSError):  # a full disk must not keep a role from its work
            fresh.write_text(json.dumps(document, sort_keys=True) + "\n")
            fresh.replace(self._file)

    def error(self, line: str, hint: str | None) -> None:
        if line != self._said:
            self._said = line
            _say(f"error: {' '.join(line.split())}")
            if hint:
                _say(f"hint: {hint}")
            if "role" in self._document:
                self._keep(self._document | {"error": line})

    def bug(self, error: Exception) -> None:
        line = f"{type(error).__name__}: {error}"
        if line != self._said:
            file = write_traceback(error, self._file.parent)
            self.error(line, f"this is a bug in pouw; please report it with {file}")


def read_status(home: Path) -> dict[str, Any] | None:
    """What the role of ``home`` last said of itself, None where it never ran."""
    try:
        document = json.loads((home / STATUS_FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def loop_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--once``, ``--poll`` and ``--while-stdin-open`` for a command that drives a role."""
    for option in (
        click.option("--once", is_flag=True, help="Take one step and end."),
        click.option(
            "--poll",
            "poll_seconds",
            type=click.FloatRange(min=0.1, max=60),
            default=1.0,
            show_default=True,
            help="Seconds from one look at the chain to the next.",
        ),
        click.option(
            "--while-stdin-open",
            is_flag=True,
            help="End when standard input ends (for whoever starts this as a child).",
        ),
    ):
        command = option(command)
    return command


def _say(line: str) -> None:
    """On standard error, which may be a file on a full disk."""
    with contextlib.suppress(OSError):
        click.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)
