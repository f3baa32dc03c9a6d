"""The pool's order: higher reward first, among equals the lower task id."""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedList

from pouw.types import TaskId

NOBODY = TaskId(0)


class Pool:
    """Task ids ordered by reward; finding a place is O(log n)."""

    def __init__(self) -> None:
        self._order: SortedList[tuple[int, TaskId]] = SortedList()
        self._rewards: dict[TaskId, int] = {}

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, task_id: TaskId) -> bool:
        return task_id in self._rewards

    def __iter__(self) -> Iterator[TaskId]:
        return (task_id for _, task_id in self._order)

    @property
    def head(self) -> TaskId:
        """The task to select next, 0 where the pool is empty."""
        return self._at(0) if self._order else NOBODY

    def insert(self, task_id: TaskId, reward: int) -> None:
        """Put a task that is not pooled in its place."""
        self._rewards[task_id] = reward
        self._order.add((-reward, task_id))

    def remove(self, task_id: TaskId) -> None:
        """Take a pooled task out; KeyError where it is not pooled."""
        reward = self._rewards.pop(task_id)
        self._order.remove((-reward, task_id))

    def above(self, reward: int) -> TaskId:
        """The lowest task that ranks above a new one of ``reward``, 0 where none does."""
        place = self._order.bisect_left((-reward + 1, NOBODY))
        return self._at(place - 1) if place else NOBODY

    def neighbours(self, task_id: TaskId) -> tuple[TaskId, TaskId]:
        """The tasks right above and right below a pooled one, 0 at the ends."""
        place = self._order.index((-self._rewards[task_id], task_id))
        above = self._at(place - 1) if place else NOBODY
        below = self._at(place + 1) if place + 1 < len(self._order) else NOBODY
        return above, below

    def _at(self, place: int) -> TaskId:
        task_id: TaskId = self._order[place][1]
        return task_id
