"""Errands that take longer than a step of a role, and their end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pouw.journal import Journal
from pouw.roles.base import Errands, Setup
from pouw.storage.local import LocalStore

NOBODY: Any = None  # no chain is asked


def test_close__one_under_way_one_waits__first_ends_second_is_never_begun(tmp_path: Path) -> None:
    begun, may_end, done = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        begun.set()
        assert may_end.wait(10)
        done.append("first")

    with Journal(tmp_path / "journal.sqlite") as journal:
        store = LocalStore(tmp_path / "store")
        errands = Errands(Setup(NOBODY, store, tmp_path, journal, 1, 0, lambda notice: None))
        errands.prepare("first", first)
        errands.prepare("second", lambda: done.append("second"))
        assert begun.wait(10)
        threading.Timer(0.2, may_end.set).start()
        errands.close()

    assert done == ["first"]
    assert not errands.under_way("second")
