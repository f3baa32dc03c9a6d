"""A publisher's tasks while they wait in the pool: raise the reward, or take everything back."""

from __future__ import annotations

from dataclasses import dataclass

from pouw.chain.arena import ArenaClient
from pouw.errors import ConfigError
from pouw.roles.base import Setup
from pouw.types import ZERO_ADDRESS, Task, TaskId

_RAISES = "top-ups"
_CANCELS = "cancels"


@dataclass(frozen=True, slots=True)
class Raised:
    """A pooled task after its reward was raised; ``paid_wei`` is 0 where an earlier run had."""

    task_id: TaskId
    reward_wei: int
    bond_wei: int
    paid_wei: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A task that was taken back; ``credited_wei`` is its reward and bond."""

    task_id: TaskId
    credited_wei: int


def top_up(setup: Setup, task_id: TaskId, amount_wei: int) -> Raised:
    """Raise a pooled task's reward by ``amount_wei``, and its bond with it; it moves up.

    The reward to reach is in the journal before the transaction leaves: a command that was killed
    is run again with the same amount, and pays once. ConfigError where the task is not in the pool.
    """
    arena, journal = setup.arena, setup.journal
    arena.sender.settle()
    task = _pooled(arena, task_id)
    key = f"{arena.address}/{task_id}"
    intent = journal.get(_RAISES, key)
    if intent is None or intent["amount_wei"] != amount_wei:
        intent = {"amount_wei": amount_wei, "reward_wei": task.reward + amount_wei}
        journal.put(_RAISES, key, intent)
    reward_wei = max(task.reward, intent["reward_wei"])
    if reward_wei > task.reward:
        arena.top_up(task_id, reward_wei - task.reward)
    journal.delete(_RAISES, key)
    bond_of = arena.parameters().bond_of
    paid_wei = reward_wei - task.reward + bond_of(reward_wei) - bond_of(task.reward)
    return Raised(task_id, reward_wei, bond_of(reward_wei), paid_wei)


def cancel(setup: Setup, task_id: TaskId) -> Cancelled:
    """Take a pooled task back; reward and bond become the account's credit.

    Run again, it says the same. ConfigError where the task is not in the pool.
    """
    arena, journal = setup.arena, setup.journal
    arena.sender.settle()
    key = f"{arena.address}/{task_id}"
    intent = journal.get(_CANCELS, key)
    if intent is not None and arena.task(task_id).publisher == ZERO_ADDRESS:
        return Cancelled(task_id, intent["credited_wei"])
    task = _pooled(arena, task_id)
    credited_wei = task.reward + arena.parameters().bond_of(task.reward)
    journal.put(_CANCELS, key, {"credited_wei": credited_wei})
    arena.cancel(task_id)
    return Cancelled(task_id, credited_wei)


def _pooled(arena: ArenaClient, task_id: TaskId) -> Task:
    """The account's own task in the pool; ConfigError with what became of it otherwise."""
    task, state = arena.task(task_id), arena.state()
    if task.publisher == ZERO_ADDRESS:
        there = task_id <= state.tasks
        raise ConfigError(
            f"task {task_id} {'was cancelled' if there else 'does not exist'}",
            hint="`pouw status` lists the pool",
        )
    if not task.pooled:
        if task.round:
            what = f"its round, number {task.round}, has begun"
        elif state.selected == task_id:
            what = "it is selected: its data key is next"
        else:
            what = "it was dropped: its reward is credited, its bond burned"
        raise ConfigError(
            f"task {task_id} is not in the pool any more: {what}",
            hint="only a task that still waits can be raised or cancelled",
        )
    if task.publisher != arena.sender.address:
        raise ConfigError(
            f"task {task_id} was published by {task.publisher}, not by {arena.sender.address}",
            hint="name the publisher's account with --keystore",
        )
    return task
