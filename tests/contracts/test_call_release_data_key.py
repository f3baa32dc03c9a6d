"""releaseDataKey: begins a round, closes the one before."""

from __future__ import annotations

import pytest
from scene import BOND, DATA_KEY, REWARD, TEST_KEY, Scene

from pouw.types import ZERO_ADDRESS, ZERO_WORD, Deadlines


@pytest.fixture(scope="module")
def scene(arena: Scene) -> Scene:
    """Task 1 is selected."""
    arena.publish()
    return arena


@pytest.fixture
def opens(scene: Scene) -> int:
    return int(scene.contract.arena().selectedAt) + scene.parameters.phase2


def test_release__nothing_selected__reverts(scene: Scene, opens: int) -> None:
    scene.at(opens + 100).sync()
    with scene.reverts("NothingSelected"):
        scene.release_data_key()


def test_release__before_the_window__reverts(scene: Scene, opens: int) -> None:
    with scene.at(opens - 1).reverts("TooEarly", time=opens - 1, opens=opens):
        scene.release_data_key()


@pytest.mark.parametrize("moment", [0, 1, 99])
def test_release__in_the_window__begins_round(scene: Scene, opens: int, moment: int) -> None:
    receipt = scene.at(opens + moment).release_data_key(sender=scene.cast.stranger)
    round_ = scene.contract.rounds(1)
    assert receipt.events == [
        scene.event(
            "DataKeyReleased",
            round=1,
            taskId=1,
            dataKey=DATA_KEY,
            t0=opens + moment,
            poolHistory=round_.poolHistory,
        )
    ]
    assert (round_.taskId, round_.t0, round_.reveals, round_.verdict) == (1, opens + moment, 0, 0)
    assert (round_.opened, round_.challenged, round_.ruled, round_.changed) == (False,) * 4
    assert (round_.winner, round_.challenger) == (ZERO_ADDRESS, ZERO_ADDRESS)
    assert (round_.evidenceDigest, round_.header) == (ZERO_WORD, ZERO_WORD)
    assert round_.poolHistory != ZERO_WORD
    assert scene.contract.tasks(1).round == 1
    state = scene.contract.arena()
    assert (state.tasks, state.rounds, state.selected, state.selectedAt) == (1, 1, 0, 0)
    assert state.live


def test_release__window_over__task_is_dropped(scene: Scene, opens: int) -> None:
    with scene.at(opens + 100).reverts("NothingSelected"):
        scene.release_data_key()
    assert scene.sync().events == [
        scene.event("TaskDropped", taskId=1),
        scene.credited(scene.cast.publisher, REWARD),
        scene.credited(None, BOND),
    ]


def test_release__window_over_and_another_waits__that_one_is_too_early(
    scene: Scene, opens: int
) -> None:
    scene.publish()
    late = opens + 100
    with scene.at(late).reverts("TooEarly", time=late, opens=late + scene.parameters.phase2):
        scene.release_data_key()


@pytest.mark.parametrize("key", [TEST_KEY, ZERO_WORD])
def test_release__other_key__reverts(scene: Scene, opens: int, key: bytes) -> None:
    with scene.at(opens).reverts("WrongKey", key=key):
        scene.release_data_key(key)


def test_release__history__is_that_before_the_selection(scene: Scene) -> None:
    """The header carries the list of unfinished tasks without the selection of its own."""
    scene.publish(2_000)
    scene.publish(3_000)
    selected_at = int(scene.contract.arena().selectedAt)
    times = scene.begin_selected(selected_at)
    before = scene.contract.poolHistory()
    receipt = scene.at(times.t1).sync()
    assert [event.event_name for event in receipt.events] == ["TaskSelected"]
    scene.begin_selected(times.t1)
    assert scene.contract.rounds(2).poolHistory == before
    assert scene.contract.poolHistory() != before


def test_release__live_round__is_closed_in_the_same_call(scene: Scene) -> None:
    times = scene.begin_selected(int(scene.contract.arena().selectedAt))
    scene.at(times.t1).publish(2_000)
    assert scene.contract.arena().selectedAt == times.t1
    opens = times.t1 + scene.parameters.phase2
    assert opens == times.t6
    receipt = scene.at(opens).release_data_key()
    assert [event.event_name for event in receipt.events] == [
        "RoundClosed",
        "Credited",
        "Credited",
        "DataKeyReleased",
    ]
    assert scene.contract.rounds(1).header != ZERO_WORD
    assert scene.contract.rounds(2).t0 == times.t6


def test_release__live_round_before_t1__selects_nothing(scene: Scene) -> None:
    times: Deadlines = scene.begin_selected(int(scene.contract.arena().selectedAt))
    scene.at(times.t1 - 1).publish(2_000)
    assert scene.contract.arena().selected == 0
    with scene.at(times.t1).reverts(
        "TooEarly", time=times.t1, opens=times.t1 + scene.parameters.phase2
    ):
        scene.release_data_key()
