"""Replay of an arena's logs: its whole history rebuilt, and every rule checked on the way.

From events alone, without the contract's state: the pool in its order, selections and what they
left unfinished, rounds, headers and credits (paper, section 4.5: a node that joins late validates
all past blocks). A broken rule becomes a :class:`Finding` and the replay goes on from what was
logged, so that one lie yields few findings and a second one is still found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pouw import events, hashing
from pouw.errors import LedgerError
from pouw.ledger import rules
from pouw.ledger.accounts import Accounts
from pouw.ledger.header import link
from pouw.ledger.history import (
    Finding,
    History,
    RoundRecord,
    Rule,
    Selection,
    TaskState,
)
from pouw.ledger.pool_log import PoolLog
from pouw.ledger.round_log import Clock, RoundLog, Settled, Site
from pouw.types import (
    ZERO_ADDRESS,
    Address,
    Deadlines,
    Parameters,
    RoundNumber,
    TaskId,
)

SYNCED = (
    events.TaskPublished,
    events.TaskToppedUp,
    events.TaskCancelled,
    events.DataKeyReleased,
    events.TestOpened,
    events.RoundClosed,
)
"""Events of calls that settle the pool: after them a task is selected, unless something hinders."""


def replay(
    logs: Iterable[events.Event], parameters: Parameters, chain_id: int, arena: Address
) -> History:
    """The history that ``logs`` tell, in the order of the chain, from the arena's first on.

    LedgerError where the logs are not in order; everything else that is wrong is a finding.
    """
    replaying = Replay(parameters, chain_id, arena)
    for event in logs:
        replaying.feed(event)
    return replaying.history()


class Replay:
    """A replay that takes events one by one and can be asked for the history at any time.

    Where ``closed`` is given it takes every round as soon as that is closed. Then only what a later
    event can concern is kept: memory grows with what is pooled and owed, not with the past, and
    ``history()`` tells of no closed round. Findings may still name one, say for a later reclaim.
    """

    def __init__(
        self,
        parameters: Parameters,
        chain_id: int,
        arena: Address,
        closed: Callable[[RoundRecord], None] | None = None,
    ) -> None:
        self._closed = closed
        domain = hashing.domain_separator(chain_id, arena)
        self._site = Site(parameters, chain_id, arena, domain)
        self._findings: list[Finding] = []
        self._pool = PoolLog(parameters, self._find_in_pool, forgets=closed is not None)
        self._selected: Selection | None = None
        self._rounds: dict[RoundNumber, RoundLog | Settled] = {}
        self._untold: set[RoundNumber] = set()
        self._begun = RoundNumber(0)
        self._live: RoundLog | None = None
        self._parents: tuple[bytes, ...] = (domain,)
        self._last_header = domain
        self._clock = Clock()
        self._position = (0, -1)
        self._accounts = Accounts()
        self._synced = False
        self._handlers: dict[type[events.Event], Callable[[Any], None]] = {
            events.TaskPublished: self._pool.published,
            events.TaskToppedUp: self._pool.topped_up,
            events.TaskCancelled: self._task_cancelled,
            events.TaskSelected: self._task_selected,
            events.TaskDropped: self._task_dropped,
            events.DataKeyReleased: self._data_key_released,
            events.Committed: self._in_round(RoundLog.committed),
            events.TestOpened: self._in_round(RoundLog.test_opened),
            events.Revealed: self._in_round(RoundLog.revealed),
            events.Reported: self._in_round(RoundLog.reported),
            events.Challenged: self._in_round(RoundLog.challenged),
            events.Ruled: self._in_round(RoundLog.ruled),
            events.RoundClosed: self._in_round(self._close),
            events.Reclaimed: self._reclaimed,
            events.Credited: self._accounts.credited,
            events.Withdrawn: self._withdrawn,
        }

    def feed(self, event: events.Event) -> None:
        """Take the next event of the chain; LedgerError where it is not a later one."""
        if event.position <= self._position:
            raise LedgerError(
                f"log {event.position} after {self._position}",
                hint="sort by block number and log index, and leave repeated logs out",
            )
        self._position = event.position
        if event.transaction_hash != self._accounts.transaction:
            self._findings += self._unsettled()
            self._accounts.begin(event.transaction_hash)
            self._synced = False
        self._synced |= isinstance(event, SYNCED)
        self._handlers[type(event)](event)

    def history(self) -> History:
        """Everything that is known after the events so far."""
        return History(
            parameters=self._site.parameters,
            chain_id=self._site.chain_id,
            arena=self._site.arena,
            tasks=dict(self._pool.tasks),
            rounds={
                number: log.record()
                for number, log in self._rounds.items()
                if isinstance(log, RoundLog)
            },
            selections=tuple(self._pool.selections),
            steps=tuple(self._pool.steps),
            pool=tuple(self._pool.pool),
            selected=self._selected,
            live=self._live.number if self._live else None,
            pool_history=self._pool.history,
            last_header=self._last_header,
            credits=self._accounts.credits,
            findings=(*self._findings, *self._unsettled()),
            block_number=self._position[0],
        )

    # The pool

    def _task_cancelled(self, event: events.TaskCancelled) -> None:
        task = self._pool.cancelled(event)
        if task is not None:
            escrow = task.reward + self._site.parameters.bond_of(task.reward)
            self._accounts.owe({task.publisher: escrow}, self._next_round, task.task_id)

    def _task_selected(self, event: events.TaskSelected) -> None:
        task_id, time, live = event.task_id, event.selected_at, self._live
        selection = self._pool.selected(event)
        if self._selected is not None:
            before = self._selected.task_id
            self._find_in_pool(task_id, Rule.SELECTION, f"task {before} was still selected")
        if live is not None and time < live.deadlines.t1:
            self._find_in_pool(task_id, Rule.SELECTION, f"round {live.number} was in Phase 1")
        elif time < self._clock.time:
            self._find_in_pool(task_id, Rule.WINDOW, f"selected at {time}, before what preceded it")
        self._clock.reach(time)
        self._select(selection)

    def _task_dropped(self, event: events.TaskDropped) -> None:
        selection, task_id = self._selected, event.task_id
        if selection is None or selection.task_id != task_id:
            self._find_in_pool(task_id, Rule.SELECTION, "dropped, but not selected")
            return
        self._selected = None
        parameters = self._site.parameters
        self._clock.reach(selection.selected_at + parameters.phase2 + parameters.key_window)
        if task_id in self._pool.tasks:
            task = self._pool.leave(task_id, TaskState.DROPPED)
            due = rules.dropped_payouts(parameters, task.publisher, task.reward)
            self._accounts.owe(due, self._next_round, task_id)

    # Rounds

    def _data_key_released(self, event: events.DataKeyReleased) -> None:
        number, task_id = event.round, event.task_id
        report = partial(self._find, number, task_id)
        if number in self._rounds:
            report(Rule.ROUNDS, "began twice")
            return
        if self._live is not None:
            self._live.report(Rule.CLOSING, f"not closed before round {number} began")
            self._live, self._parents = None, ()
        if number != self._begun + 1:
            report(Rule.ROUNDS, f"follows round {self._begun}")
        self._begun = max(self._begun, number)
        if self._selected is None or self._selected.task_id != task_id:
            report(Rule.SELECTION, "its data key was released, but it was not selected")
            latest = event.t0 - self._site.parameters.phase2
            self._select(Selection(task_id, latest, tuple(self._pool.pool), event.pool_history))
        selection, self._selected = self._selected, None
        if task_id not in self._pool.tasks or selection is None:
            self._untold.add(number)
            return
        self._begin(event, selection, report)

    def _begin(
        self,
        event: events.DataKeyReleased,
        selection: Selection,
        report: Callable[[Rule, str], None],
    ) -> None:
        """Begin the round of a known task, after checking key, window and pool history."""
        parameters = self._site.parameters
        task = self._pool.change(event.task_id, TaskState.RUN, event.round)
        if hashing.keccak(event.data_key) != task.key_hash:
            report(Rule.KEYS, "the data key does not hash to what was published")
        if event.pool_history != selection.pool_history:
            report(Rule.POOL_HISTORY, "the round's pool history is not that before its selection")
        opens = selection.selected_at + parameters.phase2
        if not max(opens, self._clock.time) <= event.t0 < opens + parameters.key_window:
            report(Rule.WINDOW, f"data key released at {event.t0}, outside its window")
        self._clock.reach(event.t0)
        self._live = self._rounds[event.round] = RoundLog(
            site=self._site,
            report=report,
            number=event.round,
            task=task,
            selection=selection,
            data_key=event.data_key,
            deadlines=Deadlines.of(event.t0, parameters),
            clock=self._clock,
            block_number=event.block_number,
        )

    def _in_round(self, handler: Callable[[RoundLog, Any], None]) -> Callable[[Any], None]:
        """A handler for events of the live round only."""

        def handle(event: Any) -> None:
            if self._live is not None and event.round == self._live.number:
                handler(self._live, event)
            else:
                self._stray(event)

        return handle

    def _stray(self, event: Any) -> None:
        """An event of a round that is not live: one finding for a round that never began."""
        number, name = event.round, type(event).__name__
        if number in self._rounds or self._is_past(number):
            self._find(number, None, Rule.ROUNDS, f"{name} in a round that is not live")
            return
        if number not in self._untold:
            self._untold.add(number)
            self._find(number, None, Rule.ROUNDS, f"{name} in a round that never began")
        self._accounts.owe_unknown()
        if isinstance(event, events.RoundClosed):
            self._parents, self._last_header = (event.header,), event.header

    def _close(self, log: RoundLog, event: events.RoundClosed) -> None:
        log.close(event)
        header = log.rebuilt_header(event)
        if self._parents:
            header = link(header, event.header, self._parents)
        computed = hashing.header_hash(header)
        if self._parents and computed != event.header:
            log.report(Rule.HEADER, f"hashes to 0x{computed.hex()}, not 0x{event.header.hex()}")
        log.header = header
        self._parents, self._last_header = (event.header, computed), event.header
        self._live = None
        if log.ruling is not None and log.challenger is None:
            self._accounts.owe_unknown()
            return
        task = log.task
        due = rules.payouts(self._site.parameters, task.publisher, task.reward, log.outcome())
        self._accounts.owe(due, log.number, task.task_id)
        if self._closed is not None:
            self._closed(log.record())
            settled = log.settled()
            if settled.bonds:
                self._rounds[log.number] = settled
            else:
                del self._rounds[log.number]
            self._pool.forget(task.task_id)

    # Money

    def _reclaimed(self, event: events.Reclaimed) -> None:
        number = event.round
        log = self._rounds.get(number)
        if log is None and self._is_past(number):
            self._find(number, None, Rule.RECLAIM, f"{event.miner} has no bond to reclaim")
            return
        if log is None:
            self._stray(event)
            return
        burned = log.reclaim(event)
        if burned is not None:
            account = ZERO_ADDRESS if burned else event.miner
            task_id = log.task_id if isinstance(log, Settled) else log.task.task_id
            bond = self._site.parameters.miner_bond
            self._accounts.owe({account: bond}, number, task_id)
        if isinstance(log, Settled) and not log.bonds:
            del self._rounds[number]

    def _withdrawn(self, event: events.Withdrawn) -> None:
        self._findings += self._accounts.withdrawn(event)

    def _unsettled(self) -> list[Finding]:
        """What is wrong with the current transaction as a whole."""
        found = self._accounts.unsettled(self._begun)
        hindered = self._live is not None and self._clock.time < self._live.deadlines.t1
        if self._synced and self._pool.pool and self._selected is None and not hindered:
            detail = "nothing hindered its selection, yet it was not selected"
            found.append(Finding(self._next_round, self._pool.pool.head, Rule.SELECTION, detail))
        return found

    # Steps

    def _is_past(self, number: RoundNumber) -> bool:
        """Whether it is a round that was told, closed and let go."""
        return (
            self._closed is not None
            and 0 < number <= self._begun
            and number not in self._untold
            and number not in self._rounds
        )

    @property
    def _next_round(self) -> RoundNumber:
        return RoundNumber(self._begun + 1)

    def _find(
        self, number: RoundNumber | None, task_id: TaskId | None, rule: Rule, detail: str
    ) -> None:
        self._findings.append(Finding(number, task_id, rule, detail))

    def _find_in_pool(self, task_id: TaskId, rule: Rule, detail: str) -> None:
        self._find(self._next_round, task_id, rule, detail)

    def _select(self, selection: Selection) -> None:
        self._pool.take(selection)
        self._selected = selection
