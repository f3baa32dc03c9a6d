"""topUp, cancel, sync: what happens to a task that waits, and to one that was selected."""

from __future__ import annotations

import pytest
from scene import BOND, REWARD, SPEC, Scene

from pouw import hashing
from pouw.types import PoolChange, TaskId


@pytest.fixture(scope="module")
def scene(arena: Scene) -> Scene:
    """Task 1 is selected; tasks 2, 3 and 4 wait with rising rewards."""
    arena.publish(sender=arena.cast.rival)
    for reward in (10_000, 20_000, 30_000):
        arena.publish(reward)
    return arena


def history_after(scene: Scene, kind: PoolChange, task_id: int, reward: int) -> bytes:
    before = scene.contract.poolHistory()
    publisher = scene.cast.publisher.address
    return hashing.pool_history(before, kind, TaskId(task_id), publisher, SPEC, reward)


def test_top_up__past_another__moves_up(scene: Scene) -> None:
    after = history_after(scene, PoolChange.TOP_UP, 2, 25_005)
    before = scene.balance
    receipt = scene.top_up(2, 15_005)
    assert receipt.events == [
        scene.event("TaskToppedUp", taskId=2, reward=25_005, poolHistory=after)
    ]
    assert scene.pool() == [4, 2, 3]
    assert scene.contract.tasks(2).reward == 25_005
    assert scene.balance - before == 15_005 + 2_500 - 1_000


def test_top_up__to_an_equal_reward__lower_id_comes_first(scene: Scene) -> None:
    scene.top_up(3, 10_000)
    assert scene.pool() == [3, 4, 2]
    scene.top_up(2, 20_000, hint=4)
    assert scene.pool() == [2, 3, 4]


@pytest.mark.parametrize("hint", [0, 1, 2, 3, 4, 99])
def test_top_up__any_hint__finds_its_place(scene: Scene, hint: int) -> None:
    scene.top_up(2, 15_000, hint=hint)
    assert scene.pool() == [4, 2, 3]


def test_top_up__not_pooled__reverts(scene: Scene) -> None:
    for task_id in (0, 1, 99):
        with scene.reverts("TaskNotPooled", taskId=task_id):
            scene.top_up(task_id, 1, sender=scene.cast.rival, value=1)


def test_top_up__not_its_publisher__reverts(scene: Scene) -> None:
    rival = scene.cast.rival
    with scene.reverts("NotPublisher", taskId=2, caller=rival.address):
        scene.top_up(2, 1, sender=rival)


def test_top_up__nothing__reverts(scene: Scene) -> None:
    with scene.reverts("NothingToAdd"):
        scene.top_up(2, 0, value=0)


def test_top_up__other_than_amount_and_growth_of_bond__reverts(scene: Scene) -> None:
    for sent in (0, 1_099, 1_101):
        with scene.reverts("WrongPayment", sent=sent, expected=1_100):
            scene.top_up(2, 1_000, value=sent)


def test_top_up__bond_rounds_down__follows_the_sum(scene: Scene) -> None:
    """10,009 carries a bond of 1,000: the nine units more cost no bond, the tenth costs one."""
    before = scene.balance
    scene.top_up(2, 9, value=9)
    scene.top_up(2, 1, value=2)
    assert scene.balance - before == 11


def test_cancel__pooled__returns_everything(scene: Scene) -> None:
    publisher = scene.cast.publisher
    after = history_after(scene, PoolChange.CANCEL, 3, 0)
    receipt = scene.cancel(3)
    assert receipt.events == [
        scene.event("TaskCancelled", taskId=3, poolHistory=after),
        scene.credited(publisher, 22_000),
    ]
    assert scene.pool() == [4, 2]
    assert scene.contract.credits(publisher) == 22_000
    assert scene.contract.tasks(3).reward == 0
    with scene.reverts("TaskNotPooled", taskId=3):
        scene.cancel(3)


def test_cancel__not_pooled__reverts(scene: Scene) -> None:
    for task_id in (0, 1, 99):
        with scene.reverts("TaskNotPooled", taskId=task_id):
            scene.cancel(task_id, sender=scene.cast.rival)


def test_cancel__not_its_publisher__reverts(scene: Scene) -> None:
    rival = scene.cast.rival
    with scene.reverts("NotPublisher", taskId=4, caller=rival.address):
        scene.cancel(4, sender=rival)


def test_cancel__arena_waits_for_this_one__selects_it_instead(scene: Scene) -> None:
    """The head is owed its selection first: whoever waits cannot take it back any more."""
    closes = scene.contract.arena().selectedAt + scene.parameters.phase2 + 100
    with scene.at(closes).reverts("TaskNotPooled", taskId=4):
        scene.cancel(4)
    scene.cancel(3)
    assert scene.contract.arena().selected == 4


def test_cancel__every_task__leaves_an_empty_pool(scene: Scene) -> None:
    for task_id in (3, 4, 2):
        scene.cancel(task_id)
    assert scene.pool() == []
    scene.publish(5_000)
    assert scene.pool() == [5]


def test_sync__key_window_open__changes_nothing(scene: Scene) -> None:
    closes = scene.contract.arena().selectedAt + scene.parameters.phase2 + 100
    assert scene.at(closes - 1).sync().events == []


def test_sync__key_window_over__drops_and_selects(scene: Scene) -> None:
    closes = scene.contract.arena().selectedAt + scene.parameters.phase2 + 100
    receipt = scene.at(closes).sync()
    task = scene.contract.tasks(4)
    assert [event.event_name for event in receipt.events] == [
        "TaskDropped",
        "Credited",
        "Credited",
        "TaskSelected",
    ]
    assert receipt.events[:3] == [
        scene.event("TaskDropped", taskId=1),
        scene.credited(scene.cast.rival, REWARD),
        scene.credited(None, BOND),
    ]
    assert receipt.events[3].taskId == 4
    assert receipt.events[3].selectedAt == closes
    assert (task.pooled, task.round) == (False, 0)
    assert scene.pool() == [3, 2]
    assert scene.sync().events == [], "after _sync, _sync changes nothing"


def test_sync__year_of_silence__settles_one_task_a_call(scene: Scene) -> None:
    for left in ([3, 2], [2], [], []):
        scene.at(scene.now + 365 * 86_400)
        scene.sync()
        assert scene.pool() == left
    assert scene.contract.arena().selected == 0
    everything = 3 * 20_000 + REWARD
    paid = scene.contract.credits(scene.cast.publisher) + scene.contract.credits(scene.cast.rival)
    assert paid == everything
    assert scene.balance == everything + 6_000 + BOND


@pytest.mark.parametrize(("reward", "hint"), [(40_000, 0), (30_000, 4), (25_000, 4), (1_000, 2)])
def test_hint_for__reward__is_the_lowest_task_above(scene: Scene, reward: int, hint: int) -> None:
    assert scene.contract.hintFor(reward) == hint


def test_pool__from_a_task__goes_on_after_it(scene: Scene) -> None:
    assert list(scene.contract.pool(0, 2)) == [4, 3]
    assert list(scene.contract.pool(3, 2)) == [2]
    assert list(scene.contract.pool(2, 2)) == []
    assert list(scene.contract.pool(0, 0)) == []


def test_pool__from_a_task_not_pooled__reverts(scene: Scene) -> None:
    with scene.reverts("TaskNotPooled", taskId=1):
        scene.contract.pool(1, 10)
