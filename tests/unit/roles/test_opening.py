"""What an oracle opens of several rounds, whoever serves it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from slow_place import PATIENCE_SECONDS, Slow
from tiny_task import tiny_spec

from pouw.hashing import data_key_of, key_hash_of
from pouw.journal import Journal
from pouw.roles.base import Errands, Notice, Setup
from pouw.roles.feed import RoundEvents
from pouw.roles.opening import Openings
from pouw.roles.provenance import Provenance
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors
from pouw.types import ZERO_ADDRESS, RoundNumber, Task, TaskId

TEST_KEY = b"\x07" * 32
FIRST, SECOND = RoundNumber(1), RoundNumber(2)
NOWHERE: Any = None


def task(number: int, spec_digest: bytes) -> Task:
    return Task(
        task_id=TaskId(number),
        publisher=ZERO_ADDRESS,
        min_score=1,
        round=RoundNumber(number),
        pooled=False,
        first=False,
        reward=1,
        above=TaskId(0),
        below=TaskId(0),
        spec_digest=spec_digest,
        key_hash=key_hash_of(TEST_KEY),
    )


def test_open__archive_of_the_round_before_is_served_by_the_byte__is_looked_for_meanwhile(
    tmp_path: Path,
) -> None:
    stranger, notices = Slow(tmp_path / "stranger"), list[Notice]()
    archive = stranger.put_slow_archive(tmp_path / "sealed")
    spec = tiny_spec(train=archive, test=archive)
    stranger.put_bytes(spec.encode())
    store = Mirrors([("own", LocalStore(tmp_path / "own")), ("stranger", stranger)])
    events = RoundEvents(data_key=data_key_of(TEST_KEY), test_key=TEST_KEY)
    with Journal(tmp_path / "journal.sqlite") as journal:
        setup = Setup(NOWHERE, store, tmp_path / "home", journal, 1, 0, notices.append)
        errands = Errands(setup)
        openings = Openings(setup, errands, Provenance(setup))
        openings.open(FIRST, task(1, spec.digest()), events)
        assert stranger.asked.wait(PATIENCE_SECONDS)

        openings.end_round(SECOND)
        until = time.monotonic() + PATIENCE_SECONDS / 2
        while openings.fault(SECOND, late=True) is None:
            assert time.monotonic() < until
            openings.open(SECOND, task(2, tiny_spec(title="Nowhere").digest()), events)
            time.sleep(0.01)

        stranger.may_send.set()
        errands.finish()
        errands.close()
    assert set(stranger.sent) != stranger.slow, "what is fetched for a past round is broken off"
    assert openings.fault(FIRST, late=True) is None
    assert [notice.text.split(":")[0] for notice in notices] == ["fetch the data of task 2"]
