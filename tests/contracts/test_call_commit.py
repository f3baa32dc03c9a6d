"""commit: Phase 1 only, free, the last one counts."""

from __future__ import annotations

import pytest
from scene import Scene

from pouw.types import Deadlines, EntryState


@pytest.fixture(scope="module")
def times(arena: Scene) -> Deadlines:
    """Round 1 is in Phase 1."""
    return arena.begin()


def test_commit__phase1__is_kept_with_its_time(arena: Scene, times: Deadlines) -> None:
    miner = arena.cast.miners[0]
    word = arena.commitment(miner)
    now = arena.now
    receipt = arena.commit(miner)
    assert receipt.events == [
        arena.event("Committed", round=1, miner=miner.address, commitment=word, committedAt=now)
    ]
    entry = arena.contract.entries(1, miner)
    assert (entry.committedAt, entry.claim, entry.state) == (now, 0, EntryState.COMMITTED)
    assert entry.digest == word[:22]


def test_commit__again__the_last_one_and_its_time_count(arena: Scene, times: Deadlines) -> None:
    miner = arena.cast.miners[0]
    arena.commit(miner)
    other = b"\x11" * 32
    receipt = arena.at(times.t0 + 500).commit(miner, commitment=other)
    entry = arena.contract.entries(1, miner)
    assert receipt.timestamp == times.t0 + 500
    assert (entry.committedAt, entry.digest) == (times.t0 + 500, other[:22])


def test_commit__last_second__counts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t1 - 1).commit(arena.cast.miners[0])
    assert arena.contract.entries(1, arena.cast.miners[0]).state == EntryState.COMMITTED


@pytest.mark.parametrize("late", [0, 1])
def test_commit__phase1_over__reverts(arena: Scene, times: Deadlines, late: int) -> None:
    now = times.t1 + late
    with arena.at(now).reverts("TooLate", time=now, closed=times.t1):
        arena.commit(arena.cast.miners[0])


@pytest.mark.parametrize("number", [0, 2, 2**64 - 1])
def test_commit__no_such_round__reverts(arena: Scene, times: Deadlines, number: int) -> None:
    with arena.reverts("NotLive", round=number):
        arena.commit(arena.cast.miners[0], number)


def test_commit__closed_round__reverts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t2).finalize()
    with arena.reverts("TooLate", time=arena.now, closed=times.t1):
        arena.commit(arena.cast.miners[0])
