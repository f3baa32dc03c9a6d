"""openTest: once, in its window, with the other key."""

from __future__ import annotations

import pytest
from scene import BOND, DATA_KEY, FEE, REWARD, TEST_KEY, Scene

from pouw.types import ZERO_WORD, Deadlines


@pytest.fixture(scope="module")
def times(arena: Scene) -> Deadlines:
    """Round 1 is in Phase 1."""
    return arena.begin()


@pytest.mark.parametrize("moment", [0, 1, 99])
def test_open__in_the_window__emits_the_key(arena: Scene, times: Deadlines, moment: int) -> None:
    receipt = arena.at(times.t1 + moment).open_test(sender=arena.cast.stranger)
    assert receipt.events == [arena.event("TestOpened", round=1, testKey=TEST_KEY)]
    assert arena.contract.rounds(1).opened


def test_open__phase1__reverts(arena: Scene, times: Deadlines) -> None:
    now = times.t1 - 1
    with arena.at(now).reverts("TooEarly", time=now, opens=times.t1):
        arena.open_test()


@pytest.mark.parametrize("late", [0, 1])
def test_open__window_over__reverts(arena: Scene, times: Deadlines, late: int) -> None:
    now = times.t2 + late
    with arena.at(now).reverts("TooLate", time=now, closed=times.t2):
        arena.open_test()


def test_open__never__burns_bond_and_fee(arena: Scene, times: Deadlines) -> None:
    with arena.at(times.t2 - 1).reverts("NotDecided", round=1):
        arena.finalize()
    receipt = arena.at(times.t2).finalize()
    assert receipt.events[1:] == [
        arena.credited(arena.cast.publisher, REWARD - FEE),
        arena.credited(None, BOND + FEE),
    ]


def test_open__again__reverts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t1).open_test()
    with arena.reverts("TestAlreadyOpen", round=1):
        arena.open_test()


@pytest.mark.parametrize("key", [DATA_KEY, ZERO_WORD])
def test_open__other_key__reverts(arena: Scene, times: Deadlines, key: bytes) -> None:
    with arena.at(times.t1).reverts("WrongKey", key=key):
        arena.open_test(key)


def test_open__no_live_round__reverts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t2).finalize()
    with arena.reverts("NotLive", round=1):
        arena.open_test()


def test_open__another_waits__is_selected(arena: Scene, times: Deadlines) -> None:
    arena.publish(2_000)
    receipt = arena.at(times.t1).open_test()
    assert [event.event_name for event in receipt.events] == ["TaskSelected", "TestOpened"]
    assert arena.contract.arena().selected == 2
