"""What an oracle fetches and opens of tasks, whoever serves it, and what it gives up on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from slow_place import PATIENCE_SECONDS, Slow
from tiny_task import tiny_spec, write_tiny_set

from pouw.archive import pack
from pouw.documents import Archive
from pouw.hashing import data_key_of, key_hash_of
from pouw.journal import Journal
from pouw.roles.base import Errands, Notice, Setup
from pouw.roles.evidence import NOT_TO_BE_HAD
from pouw.roles.feed import RoundEvents
from pouw.roles.opening import Openings
from pouw.roles.patience import Patience
from pouw.roles.provenance import Provenance
from pouw.sealing import Sealing
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors
from pouw.types import ZERO_ADDRESS, RoundNumber, Task, TaskId

TEST_KEY = b"\x07" * 32
NOW, LATE = 1_000_000, 1_000_500
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


@dataclass
class World:
    """An oracle's openings over a place that makes it wait."""

    openings: Openings
    errands: Errands
    stranger: Slow
    home: Path
    notices: list[Notice]

    def until(self, done: Callable[[], object]) -> None:
        ends = time.monotonic() + PATIENCE_SECONDS / 2
        while not done():
            assert time.monotonic() < ends
            time.sleep(0.01)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    stranger, notices = Slow(tmp_path / "stranger"), list[Notice]()
    store = Mirrors([("own", LocalStore(tmp_path / "own")), ("stranger", stranger)])
    with Journal(tmp_path / "journal.sqlite") as journal:
        setup = Setup(NOWHERE, store, tmp_path / "home", journal, 1, 0, notices.append)
        errands = Errands(setup)
        provenance = Provenance(setup)
        openings = Openings(setup, errands, provenance)
        yield World(openings, errands, stranger, tmp_path / "home", notices)
        stranger.may_send.set()
        errands.finish()
        provenance.close()
        errands.close()


def patience(**changes: int) -> Patience:
    """That of an oracle for which it is late and which asked for everything in good time."""
    plain = Patience(now=LATE, late=LATE, last_look=NOW, asked_by=NOW, archives_by=NOW)
    return dataclasses.replace(plain, **changes)


def sealed_task(world: World, folder: Path, extra: str | None = None, **changes: Any) -> Task:
    """A served task of a training and a test case, the archives with one file more if ``extra``."""
    tar = folder / "set.tar"
    parts = {}
    for kind, key in (("train", data_key_of(TEST_KEY)), ("test", TEST_KEY)):
        data = write_tiny_set(folder / kind, train=int(kind == "train"), test=int(kind == "test"))
        if extra is not None:
            (data / extra).write_text("more")
        pack(data, tar)
        with Sealing(tar, key) as sealing:
            stored = world.stranger.put_leaves(sealing)
        parts[kind] = Archive(cid=stored.cid, bytes=stored.bytes, cases=1)
    spec = tiny_spec(**{**parts, **changes})
    world.stranger.put_bytes(spec.encode())
    return task(1, spec.digest())


def test_seek__no_key_is_out__both_archives_are_fetched_and_each_is_opened_with_its_key(
    world: World, tmp_path: Path
) -> None:
    one, folder = sealed_task(world, tmp_path), world.home / "tasks" / "1"
    world.openings.seek(one, NOW)
    world.until(lambda: len(list(folder.glob("*.sealed"))) == 2)
    world.errands.finish()
    assert world.openings.fault(FIRST, one, patience()) is None

    events = RoundEvents(data_key=data_key_of(TEST_KEY))
    world.openings.open(FIRST, one, events)
    world.errands.finish()
    assert (folder / "train").exists()
    assert world.openings.of(FIRST) is None

    world.openings.open(FIRST, one, dataclasses.replace(events, test_key=TEST_KEY))
    world.errands.finish()
    opened = world.openings.of(FIRST)
    assert opened is not None
    assert (opened.train, opened.test) == (folder / "train", folder / "test")
    assert not world.notices


def test_open__more_files_than_cases_and_channels_need__is_a_fault(
    world: World, tmp_path: Path
) -> None:
    one = sealed_task(world, tmp_path, extra="more.txt")
    world.openings.seek(one, NOW)
    world.errands.finish()
    world.openings.open(FIRST, one, RoundEvents(data_key=data_key_of(TEST_KEY)))
    world.errands.finish()
    assert "more than 3 files" in str(world.openings.fault(FIRST, one, patience()))


def test_fault__archive_still_arrives__is_not_to_be_had_where_it_was_asked_for_in_good_time(
    world: World, tmp_path: Path
) -> None:
    archive = world.stranger.put_slow_archive(tmp_path / "sealed")
    spec = tiny_spec(train=archive, test=archive)
    world.stranger.put_bytes(spec.encode())
    one = task(1, spec.digest())
    world.openings.seek(one, NOW)
    assert world.stranger.asked.wait(PATIENCE_SECONDS)
    assert world.openings.fault(FIRST, one, patience(now=LATE - 1)) is None, "there is time"
    assert world.openings.fault(FIRST, one, patience(archives_by=NOW - 1)) is None, "came late"
    found = world.openings.fault(FIRST, one, patience())
    assert found == f"{NOT_TO_BE_HAD}it was still arriving after {LATE - NOW} s"


@pytest.mark.parametrize("away_seconds", [300, 301])
def test_fault__oracle_did_not_look_for_a_while__archives_count_from_its_return_on(
    world: World, tmp_path: Path, away_seconds: int
) -> None:
    archive = world.stranger.put_slow_archive(tmp_path / "sealed")
    spec = tiny_spec(train=archive, test=archive)
    world.stranger.put_bytes(spec.encode())
    one = task(1, spec.digest())
    world.openings.seek(one, NOW)
    assert world.stranger.asked.wait(PATIENCE_SECONDS)
    world.openings.seek(one, NOW + away_seconds)
    found = world.openings.fault(FIRST, one, patience())
    assert (found is None) == (away_seconds > 300)


def test_fault__archive_is_missing__is_not_to_be_had_where_it_was_asked_for_again_at_the_end(
    world: World,
) -> None:
    one = task(1, tiny_spec(title="Nowhere").digest())
    world.openings.seek(one, NOW)
    world.until(lambda: world.openings.fault(FIRST, one, patience(archives_by=0)))
    long_ago, late = patience(last_look=NOW + 1, archives_by=0), patience(asked_by=0, archives_by=0)
    assert world.openings.fault(FIRST, one, long_ago) is None, "it may be there again by now"
    assert world.openings.fault(FIRST, one, late) is None, "the oracle came late"
    found = world.openings.fault(FIRST, one, patience(archives_by=0))
    assert found is not None
    assert found.startswith(NOT_TO_BE_HAD + "no place has")


def test_seek__archive_of_another_size__is_a_fault_before_any_key_is_out(
    world: World, tmp_path: Path
) -> None:
    archive = world.stranger.put_slow_archive(tmp_path / "sealed")
    world.stranger.may_send.set()
    wrong = archive.model_copy(update={"bytes": archive.bytes - 1})
    one = sealed_task(world, tmp_path, test=wrong)
    world.openings.seek(one, NOW)
    world.until(lambda: world.openings.fault(FIRST, one, patience(now=NOW)))
    world.openings.seek(one, NOW)
    world.errands.finish()
    assert len(world.notices) == 1, "it is not fetched again"


def test_seek__another_task_has_the_id_since_a_reorganisation__nothing_of_the_other_is_left(
    world: World, tmp_path: Path
) -> None:
    one, folder = sealed_task(world, tmp_path), world.home / "tasks" / "1"
    (folder / "train").mkdir(parents=True)
    (folder / "spec.json").write_bytes(tiny_spec(title="Another").encode())
    world.openings.seek(one, NOW)
    world.until(lambda: len(list(folder.glob("*.sealed"))) == 2)
    assert not (folder / "train").exists()


def test_seek__archive_of_another_task_is_served_by_the_byte__is_looked_for_meanwhile(
    world: World, tmp_path: Path
) -> None:
    archive = world.stranger.put_slow_archive(tmp_path / "sealed")
    spec = tiny_spec(train=archive, test=archive)
    world.stranger.put_bytes(spec.encode())
    first, second = task(1, spec.digest()), task(2, tiny_spec(title="Nowhere").digest())
    world.openings.seek(first, NOW)
    assert world.stranger.asked.wait(PATIENCE_SECONDS)

    world.openings.end_all_but([second])
    world.openings.seek(second, NOW)
    world.until(lambda: world.openings.fault(SECOND, second, patience(archives_by=0)))

    world.stranger.may_send.set()
    world.errands.finish()
    assert set(world.stranger.sent) != world.stranger.slow, "the other is broken off"
    assert world.openings.fault(FIRST, first, patience()) is None
    assert [notice.text.split(":")[0] for notice in world.notices] == ["fetch the data of task 2"]
