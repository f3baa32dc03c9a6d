"""One oracle over a stage's round, looked at from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from revealing import Stage

from pouw.documents import Evidence
from pouw.events import Reported
from pouw.hashing import raw_cid
from pouw.journal import Journal
from pouw.roles.base import Notice, Setup
from pouw.roles.oracle import Oracle, OracleOptions

PATIENCE_SECONDS = 240.0


class Watched:
    """One oracle over a stage's round, with what it said."""

    def __init__(self, stage: Stage, folder: Path, options: OracleOptions) -> None:
        self.notices: list[Notice] = []
        self._stage = stage
        self._journal = Journal(folder / "journal.sqlite")
        setup = Setup(
            stage.clients[1], stage.store, folder / "home", self._journal, 1, 0, self.notices.append
        )
        self.oracle = Oracle(setup, options, inline=True)

    def run(self, done: Callable[[], bool]) -> Evidence | None:
        """Look until ``done`` or a vote, which is returned."""
        until = time.monotonic() + PATIENCE_SECONDS
        arena = self._stage.clients[1]
        while time.monotonic() < until:
            self.oracle.run_once()
            for event in arena.events(0, arena.endpoint.block_number()):
                if isinstance(event, Reported):
                    document = self._stage.store.get_bytes(raw_cid(event.evidence_digest))
                    return Evidence.parse(document)
            if done():
                return None
            time.sleep(0.05)
        raise AssertionError([notice.text for notice in self.notices])

    def said(self, text: str) -> int:
        return sum(text in notice.text for notice in self.notices)

    def close(self) -> None:
        self.oracle.close()
        self._journal.close()
