"""The calls of the modelled arena on tasks: publish, raise, cancel, settle."""

from __future__ import annotations

from dataclasses import replace

from pouw import events
from pouw.errors import Reverted
from pouw.ledger.books import Call
from pouw.ledger.model_state import State
from pouw.ledger.pool import NOBODY
from pouw.types import SCORE_ONE_PPM, PoolChange, RoundNumber, Task, TaskId


class Tasks(State):
    """What publishers do, and what anybody may do for the pool."""

    def publish(
        self,
        call: Call,
        spec_digest: bytes,
        key_hash: bytes,
        min_score: int,
        first: bool,
        reward: int,
    ) -> TaskId:
        """Escrow reward and bond, enter the pool; an idle arena selects at once."""
        self.books.begin(call)
        minimum = self.parameters.min_reward
        if reward < minimum:
            raise Reverted("RewardTooSmall", {"reward": reward, "minimum": minimum})
        if min_score > SCORE_ONE_PPM:
            raise Reverted("InvalidScore", {"score": min_score})
        self.books.take(call, reward + self.parameters.bond_of(reward))
        self._sync()

        task_id = TaskId(self.state.tasks + 1)
        self.state = replace(self.state, tasks=task_id)
        self.tasks[task_id] = Task(
            task_id=task_id,
            publisher=call.sender,
            min_score=min_score,
            round=RoundNumber(0),
            pooled=True,
            first=first,
            reward=reward,
            above=NOBODY,
            below=NOBODY,
            spec_digest=spec_digest,
            key_hash=key_hash,
        )
        self.pool.insert(task_id, reward)
        self.books.log(
            events.TaskPublished,
            task_id=task_id,
            publisher=call.sender,
            spec_digest=spec_digest,
            key_hash=key_hash,
            min_score=min_score,
            first=first,
            reward=reward,
            pool_history=self._roll(PoolChange.PUBLISH, task_id, reward),
        )
        self._sync()
        return task_id

    def top_up(self, call: Call, task_id: TaskId, amount: int) -> None:
        """Raise the reward, and with it the bond, of a pooled task."""
        self.books.begin(call)
        task = self._pooled_task_of(call, task_id)
        if amount == 0:
            raise Reverted("NothingToAdd")
        reward = task.reward + amount
        bond_growth = self.parameters.bond_of(reward) - self.parameters.bond_of(task.reward)
        self.books.take(call, amount + bond_growth)
        self._sync()

        self.pool.remove(task_id)
        self.pool.insert(task_id, reward)
        self.tasks[task_id] = replace(task, reward=reward)
        history = self._roll(PoolChange.TOP_UP, task_id, reward)
        self.books.log(events.TaskToppedUp, task_id=task_id, reward=reward, pool_history=history)

    def cancel(self, call: Call, task_id: TaskId) -> None:
        """Take a pooled task back: reward and bond return whole, as a credit."""
        self.books.begin(call)
        task = self._pooled_task_of(call, task_id)
        self._sync()

        self.pool.remove(task_id)
        history = self._roll(PoolChange.CANCEL, task_id, 0)
        del self.tasks[task_id]
        self.books.log(events.TaskCancelled, task_id=task_id, pool_history=history)
        bond = self.parameters.bond_of(task.reward)
        self.books.credit({task.publisher: task.reward + bond})

    def sync(self, call: Call) -> None:
        """Settle the pool: drop a selected task whose key did not come, select the next."""
        self.books.begin(call)
        self._sync()

    def _pooled_task_of(self, call: Call, task_id: TaskId) -> Task:
        """The caller's task, if it is still pooled once the pool is settled."""
        task = self.tasks.get(task_id)
        if task is None or not task.pooled or self._settled()[0] == task_id:
            raise Reverted("TaskNotPooled", {"taskId": task_id})
        if task.publisher != call.sender:
            raise Reverted("NotPublisher", {"taskId": task_id, "caller": call.sender})
        return task
