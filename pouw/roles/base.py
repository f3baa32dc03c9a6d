"""What every role is given, and what it says of itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pouw.chain.arena import ArenaClient
from pouw.chain.reading import ArenaReader
from pouw.errors import ContentError, PouwError, Reverted
from pouw.files import of_full_disk
from pouw.journal import Journal
from pouw.storage.mirrors import Mirrors
from pouw.storage.store import Store

RETRY_SECONDS = 5.0
FETCHES = 32


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that happened, for a log or a progress line."""

    level: Literal["info", "warning"]
    text: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """What a role is doing and what comes next; JSON-able."""

    role: str
    phase: str
    doing: str
    next: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observer:
    """What it takes to look on: public data and a private folder, no account.

    Blocks count once they have ``confirmations``, their own included; events are read from
    ``from_block`` on, the arena's deployment.
    """

    arena: ArenaReader
    store: Store
    home: Path
    confirmations: int
    from_block: int


@dataclass(frozen=True, slots=True)
class Setup:
    """The world of one role: the chain, what others can read, and what nobody else does.

    ``store`` is public content, ``home`` private (journal, keys, checkpoints before the reveal).
    ``confirmations`` and ``from_block`` as an :class:`Observer` has them.
    """

    arena: ArenaClient
    store: Store
    home: Path
    journal: Journal
    confirmations: int
    from_block: int
    notify: Callable[[Notice], None]

    @property
    def observer(self) -> Observer:
        """The same world without the account."""
        return Observer(self.arena, self.store, self.home, self.confirmations, self.from_block)

    def until(self, ending: threading.Event) -> Setup:
        """The same world, in which strangers are asked for nothing once ``ending`` is set."""
        if not isinstance(self.store, Mirrors):
            return self  # a folder of one's own keeps nobody waiting
        return replace(self, store=self.store.until(ending))

    def info(self, text: str, **data: Any) -> None:
        """Say that something went as it should."""
        self.notify(Notice("info", text, data))

    def warn(self, text: str, **data: Any) -> None:
        """Say that something needs somebody's attention."""
        self.notify(Notice("warning", text, data))


class Errands:
    """Named calls that take longer than a ``run_once()`` may: transactions, archives.

    A name runs at most once at a time; after an error it is tried again when asked for, no sooner
    than ``RETRY_SECONDS`` later, but at once where room was made on a full disk. One thread keeps
    transactions in order, another opens archives, several fetch what strangers serve as slowly as
    they like. ``ending`` is set once no more are taken. With ``inline`` every errand is done when
    it is asked for (a command, a test).
    """

    def __init__(self, setup: Setup, *, inline: bool = False) -> None:
        self._setup = setup
        self._inline = inline
        self.ending = threading.Event()
        self._pools = {
            kind: ThreadPoolExecutor(threads, thread_name_prefix=kind)
            for kind, threads in (("transactions", 1), ("files", 1), ("fetches", FETCHES))
        }
        self._running: dict[str, Future[Any]] = {}
        self._not_before: dict[str, float] = {}
        self._said: set[str] = set()
        if setup.journal.damage is not None:
            setup.warn(str(setup.journal.damage), hint=setup.journal.damage.hint)

    def send(self, name: str, call: Callable[[], Any]) -> None:
        """Ask for a transaction, unless it is under way or failed a moment ago."""
        self._ask("transactions", name, call)

    def prepare(self, name: str, call: Callable[[], Any]) -> None:
        """Ask for work on files, unless it is under way or failed a moment ago."""
        self._ask("files", name, call)

    def fetch(self, name: str, call: Callable[[], Any]) -> None:
        """Ask for content of strangers, unless it is under way or failed a moment ago."""
        self._ask("fetches", name, call)

    def under_way(self, name: str) -> bool:
        """Whether the errand has been asked for and is not done."""
        self._collect()
        return name in self._running

    def finish(self) -> None:
        """Wait for what is under way, however long strangers take."""
        wait(self._running.values())
        self._collect()

    def close(self) -> None:
        """Take no more, and wait for what is under way; strangers are asked for nothing more."""
        self.ending.set()
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        self._collect()

    def _ask(self, kind: str, name: str, call: Callable[[], Any]) -> None:
        self._collect()
        if name in self._running or time.monotonic() < self._not_before.get(name, 0.0):
            return
        future: Future[Any] = self._pools[kind].submit(call)
        self._running[name] = future
        if self._inline:
            future.exception()
            self._collect()

    def _collect(self) -> None:
        for name, future in list(self._running.items()):
            if not future.done():
                continue
            del self._running[name]
            if future.cancelled():
                continue
            error = future.exception()
            if error is None:
                self._not_before.pop(name, None)
                continue
            if not isinstance(error, PouwError):
                raise error
            if of_full_disk(error) and self._setup.journal.make_room():
                self._setup.warn(
                    f"the disk is full: gives up the room that was set aside, to {name}",
                    hint="free some space, then start the role again: it sets room aside anew",
                )
                continue
            self._not_before[name] = time.monotonic() + RETRY_SECONDS
            line = f"{name}: {error}"
            if line not in self._said:
                self._said.add(line)
                data = {"hint": error.hint} if error.hint else {}
                if isinstance(error, Reverted):
                    data["reverted"] = error.name
                if isinstance(error, ContentError) and error.cid:
                    data["cid"] = error.cid
                self._setup.warn(line, **data)
