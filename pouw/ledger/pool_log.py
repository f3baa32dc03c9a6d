"""The pool under replay: tasks enter, rise and leave, and every change rolls into its history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pouw import events, hashing
from pouw.ledger.history import PoolStep, Rule, Selection, TaskRecord, TaskState
from pouw.ledger.pool import Pool
from pouw.types import (
    SCORE_ONE_PPM,
    ZERO_WORD,
    Parameters,
    PoolChange,
    RoundNumber,
    TaskId,
)


@dataclass(slots=True)
class PoolLog:
    """Tasks and the pool so far; ``report(task, rule, detail)`` takes a finding.

    ``forgets``: tasks that nothing can happen to any more, selections and steps are not kept.
    """

    parameters: Parameters
    report: Callable[[TaskId, Rule, str], None]
    forgets: bool
    tasks: dict[TaskId, TaskRecord] = field(default_factory=dict)
    pool: Pool = field(default_factory=Pool)
    history: bytes = ZERO_WORD
    steps: list[PoolStep] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)
    last_task: int = 0

    def published(self, event: events.TaskPublished) -> None:
        """A task enters; ids rise by one."""
        task_id = event.task_id
        if task_id in self.tasks:
            self.report(task_id, Rule.POOL, "published twice")
            return
        if task_id != self.last_task + 1:
            self.report(task_id, Rule.POOL, f"follows task {self.last_task}")
        if event.reward < self.parameters.min_reward or event.min_score > SCORE_ONE_PPM:
            self.report(task_id, Rule.POOL, "reward or minimum score is out of bounds")
        self.last_task = max(self.last_task, task_id)
        self.tasks[task_id] = TaskRecord(
            task_id=task_id,
            publisher=event.publisher,
            spec_digest=event.spec_digest,
            key_hash=event.key_hash,
            min_score=event.min_score,
            first=event.first,
            reward=event.reward,
            state=TaskState.POOLED,
            round=None,
            block_number=event.block_number,
        )
        if task_id not in self.pool:
            self.pool.insert(task_id, event.reward)
        self._roll(PoolChange.PUBLISH, task_id, event.reward, event.pool_history)

    def topped_up(self, event: events.TaskToppedUp) -> None:
        """A pooled task's reward rises, and its place with it."""
        task_id = event.task_id
        if task_id not in self.pool:
            self.report(task_id, Rule.POOL, "raised, but not pooled")
        else:
            if event.reward <= self.tasks[task_id].reward:
                self.report(task_id, Rule.POOL, "the reward did not rise")
            self.pool.remove(task_id)
            self.pool.insert(task_id, event.reward)
            self.tasks[task_id] = replace(self.tasks[task_id], reward=event.reward)
        self._roll(PoolChange.TOP_UP, task_id, event.reward, event.pool_history)

    def cancelled(self, event: events.TaskCancelled) -> TaskRecord | None:
        """A pooled task leaves; None where it was not pooled."""
        task_id = event.task_id
        self._roll(PoolChange.CANCEL, task_id, 0, event.pool_history)
        if task_id not in self.pool:
            self.report(task_id, Rule.POOL, "cancelled, but not pooled")
            return None
        self.pool.remove(task_id)
        return self.leave(task_id, TaskState.CANCELLED)

    def selected(self, event: events.TaskSelected) -> Selection:
        """The head leaves for a round of its own."""
        task_id = event.task_id
        selection = Selection(task_id, event.selected_at, tuple(self.pool), self.history)
        if task_id not in self.pool:
            self.report(task_id, Rule.SELECTION, "selected, but not pooled")
        elif task_id != self.pool.head:
            self.report(task_id, Rule.SELECTION, f"task {self.pool.head} was the head of the pool")
        task = self.tasks.get(task_id)
        self._roll(PoolChange.SELECT, task_id, task.reward if task else 0, event.pool_history)
        return selection

    def take(self, selection: Selection) -> None:
        """Take a selection for granted, right or wrong, and go on from it."""
        task_id = selection.task_id
        if task_id in self.pool:
            self.pool.remove(task_id)
        if task_id in self.tasks:
            self.change(task_id, TaskState.SELECTED)
        if not self.forgets:
            self.selections.append(selection)

    def change(
        self, task_id: TaskId, state: TaskState, number: RoundNumber | None = None
    ) -> TaskRecord:
        """Note where a known task stands."""
        task = self.tasks[task_id] = replace(self.tasks[task_id], state=state, round=number)
        return task

    def leave(self, task_id: TaskId, state: TaskState) -> TaskRecord:
        """Note that nothing can happen to a known task any more."""
        task = self.change(task_id, state)
        self.forget(task_id)
        return task

    def forget(self, task_id: TaskId) -> None:
        """Let a task go, where tasks are let go."""
        if self.forgets:
            self.tasks.pop(task_id, None)

    def _roll(self, kind: PoolChange, task_id: TaskId, reward_after: int, logged: bytes) -> None:
        """Check one change against the logged ``pool_history``, and go on from that."""
        if not self.forgets:
            self.steps.append(PoolStep(kind, task_id, reward_after))
        task = self.tasks.get(task_id)
        if task is not None:
            computed = hashing.pool_history(
                self.history, kind, task_id, task.publisher, task.spec_digest, reward_after
            )
            if computed != logged:
                detail = f"{kind.name.lower()}: 0x{computed.hex()}, not 0x{logged.hex()}"
                self.report(task_id, Rule.POOL_HISTORY, detail)
        self.history = logged
