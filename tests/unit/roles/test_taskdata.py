"""What a miner fetches of a task, and what it stops to fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from slow_place import PATIENCE_SECONDS, Slow
from tiny_task import tiny_spec

from pouw.journal import Journal
from pouw.roles.base import Errands, Notice, Setup
from pouw.roles.taskdata import TaskData
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors
from pouw.types import ZERO_ADDRESS, ZERO_WORD, RoundNumber, Task, TaskId

NOWHERE: Any = None


@pytest.mark.parametrize("needed", [True, False])
def test_keep_only__task_is_not_needed__its_fetch_is_broken_off_without_a_word(
    tmp_path: Path, needed: bool
) -> None:
    stranger, notices = Slow(tmp_path / "stranger"), list[Notice]()
    archive = stranger.put_slow_archive(tmp_path / "sealed")
    spec = tiny_spec(train=archive, test=archive)
    stranger.put_bytes(spec.encode())
    task = Task(
        task_id=TaskId(7),
        publisher=ZERO_ADDRESS,
        min_score=1,
        round=RoundNumber(0),
        pooled=False,
        first=False,
        reward=1,
        above=TaskId(0),
        below=TaskId(0),
        spec_digest=spec.digest(),
        key_hash=ZERO_WORD,
    )
    store = Mirrors([("own", LocalStore(tmp_path / "own")), ("stranger", stranger)])
    home = tmp_path / "home"
    with Journal(tmp_path / "journal.sqlite") as journal:
        setup = Setup(NOWHERE, store, home, journal, 1, 0, notices.append)
        errands = Errands(setup)
        data = TaskData(setup, errands)
        data.fetch(task)
        assert stranger.asked.wait(PATIENCE_SECONDS)
        data.keep_only({task.task_id} if needed else set(), set())
        stranger.may_send.set()
        errands.finish()
        errands.close()
    assert (set(stranger.sent) == stranger.slow) == needed
    assert bool(list((home / "tasks" / "7").glob("*.sealed"))) == needed
    assert not notices
