"""The state of the modelled arena, and the settling that every call may do (``Arena._sync``).

The rules are told in three layers: here what there is and how the pool is settled, in
``pouw.ledger.model_tasks`` the calls on tasks, in ``pouw.ledger.model`` those on rounds and money.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from pouw import events, hashing
from pouw.errors import Reverted
from pouw.ledger import rules
from pouw.ledger.books import Books
from pouw.ledger.pool import NOBODY, Pool
from pouw.types import (
    ZERO_WORD,
    Address,
    ArenaState,
    Deadlines,
    Entry,
    EntryState,
    Parameters,
    PoolChange,
    Round,
    RoundNumber,
    Task,
    TaskId,
    Verdict,
)

NO_ENTRY = Entry(0, 0, EntryState.NONE, bytes(22))


class State:
    """What the contract stores; views named after its own."""

    def __init__(self, parameters: Parameters, chain_id: int, address: Address) -> None:
        rules.check_parameters(parameters)
        self.parameters = parameters
        self.chain_id = chain_id
        self.address = address
        self.domain = hashing.domain_separator(chain_id, address)
        self.books = Books(parameters.asset)
        self.state = ArenaState(0, 0, NOBODY, 0, live=False)
        self.tasks: dict[TaskId, Task] = {}
        self.rounds: dict[RoundNumber, Round] = {}
        self.entries: dict[RoundNumber, dict[Address, Entry]] = {}
        self.votes: Counter[tuple[RoundNumber, Verdict, Address]] = Counter()
        self.pool = Pool()
        self.pool_history = ZERO_WORD
        self.last_header = self.domain
        self._selected_history = ZERO_WORD

    def task(self, task_id: TaskId) -> Task:
        """A task as the contract shows it, with its neighbours in the pool."""
        task = self.tasks[task_id]
        if not task.pooled:
            return task
        above, below = self.pool.neighbours(task_id)
        return replace(task, above=above, below=below)

    def entry(self, number: RoundNumber, miner: Address) -> Entry:
        """A miner's entry in a round; empty where there is none."""
        return self.entries.get(number, {}).get(miner, NO_ENTRY)

    def deadlines(self, number: RoundNumber) -> Deadlines:
        """The boundaries of a round that has begun."""
        return Deadlines.of(self.rounds[number].t0, self.parameters)

    def owed(self) -> int:
        """Everything that still belongs to somebody; always equal to ``books.balance``."""
        p, live = self.parameters, self.state.live_round
        waiting = {*self.pool, self.state.selected} - {NOBODY}
        if live is not None:
            waiting.add(self.rounds[live].task_id)
        escrow = sum(
            self.tasks[task_id].reward + p.bond_of(self.tasks[task_id].reward)
            for task_id in waiting
        )
        challenged = live is not None and self.rounds[live].challenged
        states = [entry.state for each in self.entries.values() for entry in each.values()]
        bonds = states.count(EntryState.REVEALED) * p.miner_bond + challenged * p.challenge_bond
        return escrow + bonds + self.books.credits.total()

    def _settled(self) -> tuple[TaskId, int]:
        """The selected task and its time as settling leaves them now; changes nothing."""
        time, selected, selected_at = self.books.time, self.state.selected, self.state.selected_at
        closes = selected_at + self.parameters.phase2 + self.parameters.key_window
        if selected and time >= closes:
            selected, selected_at = NOBODY, 0
        live = self.state.live_round
        in_phase1 = live is not None and time < self.deadlines(live).t1
        if not selected and self.pool and not in_phase1:
            selected, selected_at = self.pool.head, time
        return selected, selected_at

    def _sync(self) -> None:
        """Drop the selected task if its key is late, then select the head if nothing hinders."""
        before = self.state.selected
        selected, selected_at = self._settled()
        if selected == before:
            return
        self.state = replace(self.state, selected=selected, selected_at=selected_at)
        if before:
            task = self.tasks[before]
            self.books.log(events.TaskDropped, task_id=before)
            self.books.credit(rules.dropped_payouts(self.parameters, task.publisher, task.reward))
        if selected:
            self.pool.remove(selected)
            self._selected_history = self.pool_history
            self.tasks[selected] = replace(self.tasks[selected], pooled=False)
            history = self._roll(PoolChange.SELECT, selected, self.tasks[selected].reward)
            self.books.log(
                events.TaskSelected,
                task_id=selected,
                selected_at=selected_at,
                pool_history=history,
            )

    def _roll(self, kind: PoolChange, task_id: TaskId, reward_after: int) -> bytes:
        task = self.tasks[task_id]
        self.pool_history = hashing.pool_history(
            self.pool_history, kind, task_id, task.publisher, task.spec_digest, reward_after
        )
        return self.pool_history

    def _live_round(self) -> RoundNumber:
        if self.state.live_round is None:
            raise Reverted("NotLive", {"round": self.state.rounds})
        return self.state.live_round

    def _require_time(self, *, opens: int = 0, closed: int | None = None) -> None:
        """Windows include their start and exclude their end."""
        time = self.books.time
        if time < opens:
            raise Reverted("TooEarly", {"time": time, "opens": opens})
        if closed is not None and time >= closed:
            raise Reverted("TooLate", {"time": time, "closed": closed})
