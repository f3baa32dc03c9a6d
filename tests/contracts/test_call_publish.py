"""publish: escrow, pool order, selection of an idle arena."""

from __future__ import annotations

import pytest
from scene import BOND, KEY_HASH, MIN_SCORE, REWARD, SPEC, Scene

from pouw import hashing
from pouw.types import SCORE_ONE_PPM, ZERO_WORD, PoolChange, TaskId


@pytest.fixture(scope="module")
def scene(arena: Scene) -> Scene:
    """Task 1 is selected; whatever is published now waits in the pool."""
    arena.publish(sender=arena.cast.rival)
    return arena


def history(before: bytes, kind: PoolChange, task_id: int, who: str, reward: int = REWARD) -> bytes:
    return hashing.pool_history(before, kind, TaskId(task_id), who, SPEC, reward)


def test_publish__idle_arena__selects_at_once(arena: Scene) -> None:
    publisher = arena.cast.publisher.address
    selected_at = arena.now
    receipt = arena.publish()
    published = history(ZERO_WORD, PoolChange.PUBLISH, 1, publisher)
    selected = history(published, PoolChange.SELECT, 1, publisher)
    assert receipt.events == [
        arena.event(
            "TaskPublished",
            taskId=1,
            publisher=publisher,
            specDigest=SPEC,
            keyHash=KEY_HASH,
            minScore=MIN_SCORE,
            first=False,
            reward=REWARD,
            poolHistory=published,
        ),
        arena.event("TaskSelected", taskId=1, selectedAt=selected_at, poolHistory=selected),
    ]
    state = arena.contract.arena()
    assert (state.tasks, state.rounds, state.selected, state.selectedAt, state.live) == (
        1,
        0,
        1,
        selected_at,
        False,
    )
    assert arena.contract.poolHistory() == selected
    assert arena.pool() == []
    assert arena.balance == REWARD + BOND


def test_publish__busy_arena__waits_in_the_pool(scene: Scene) -> None:
    receipt = scene.publish(min_score=0, first=True)
    assert [event.event_name for event in receipt.events] == ["TaskPublished"]
    task = scene.contract.tasks(2)
    assert (task.publisher, task.minScore, task.round) == (scene.cast.publisher, 0, 0)
    assert (task.pooled, task.first, task.reward) == (True, True, REWARD)
    assert (task.specDigest, task.keyHash) == (SPEC, KEY_HASH)
    assert scene.pool() == [2]
    assert scene.balance == 2 * (REWARD + BOND)


def test_publish__less_than_min_reward__reverts(arena: Scene) -> None:
    with arena.reverts("RewardTooSmall", reward=999, minimum=1_000):
        arena.publish(999)
    arena.publish(1_000)


def test_publish__score_above_one__reverts(arena: Scene) -> None:
    with arena.reverts("InvalidScore", score=SCORE_ONE_PPM + 1):
        arena.publish(min_score=SCORE_ONE_PPM + 1)
    arena.publish(min_score=SCORE_ONE_PPM)


@pytest.mark.parametrize("wrong", [-1, 1, -REWARD - BOND])
def test_publish__other_than_reward_and_bond__reverts(arena: Scene, wrong: int) -> None:
    due = REWARD + BOND
    with arena.reverts("WrongPayment", sent=due + wrong, expected=due):
        arena.publish(value=due + wrong)


@pytest.mark.parametrize(
    ("hint", "why"), [(0, "head"), (1, "selected, not pooled"), (99, "never published")]
)
def test_publish__any_hint__ranks_by_reward_then_id(scene: Scene, hint: int, why: str) -> None:
    for reward in (3_000, 5_000, 3_000, 4_000, 5_000, 1_000):
        scene.publish(reward, hint=hint)
    assert scene.pool() == [3, 6, 5, 2, 4, 7]


@pytest.mark.parametrize("hint", [2, 3, 4, 5, 6, 7])
def test_publish__stale_hint_above_or_below__finds_its_place(scene: Scene, hint: int) -> None:
    for reward in (3_000, 5_000, 3_000, 4_000, 5_000, 1_000):
        scene.publish(reward)
    scene.publish(3_500, hint=hint)
    assert scene.pool() == [3, 6, 5, 8, 2, 4, 7]


def test_publish__late_key_of_another__drops_it_and_selects_the_head(scene: Scene) -> None:
    scene.publish(2_000)
    state = scene.contract.arena()
    scene.at(state.selectedAt + scene.parameters.phase2 + scene.parameters.key_window)
    receipt = scene.publish(9_000)
    assert [event.event_name for event in receipt.events] == [
        "TaskDropped",
        "Credited",
        "Credited",
        "TaskSelected",
        "TaskPublished",
    ]
    assert scene.contract.arena().selected == 2
    assert scene.pool() == [3]
