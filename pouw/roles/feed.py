"""The arena's events as a role follows them, confirmed blocks only."""

from __future__ import annotations

from dataclasses import dataclass, field

from pouw.chain.reading import ArenaReader
from pouw.events import (
    Committed,
    DataKeyReleased,
    Event,
    Reclaimed,
    Reported,
    Revealed,
    RoundClosed,
    TaskCancelled,
    TaskDropped,
    TaskPublished,
    TestOpened,
)
from pouw.types import Address, RoundNumber, TaskId, rank_key


@dataclass(slots=True)
class RoundEvents:
    """What the events say of one round."""

    task_id: TaskId | None = None
    data_key: bytes | None = None
    test_key: bytes | None = None
    commits: dict[Address, Committed] = field(default_factory=dict)
    reveals: dict[Address, Revealed] = field(default_factory=dict)
    reports: dict[Address, Reported] = field(default_factory=dict)
    closed: RoundClosed | None = None
    reclaimed: set[Address] = field(default_factory=set)

    def ranked(self, *, first: bool) -> list[Revealed]:
        """The reveals, best rank first."""
        return sorted(
            self.reveals.values(),
            key=lambda event: rank_key(
                event.claimed_score,
                self.commits[event.miner].committed_at,
                event.miner,
                first=first,
            ),
        )


class Feed:
    """Events from ``from_block`` on, read once and kept; a restart reads them again.

    ``first_block`` is the first that was read, ``next_block`` the first that was not. ``over``:
    tasks of which nothing more comes, dropped, taken back or of a closed round.
    """

    def __init__(self, arena: ArenaReader, from_block: int, confirmations: int) -> None:
        self._arena = arena
        self.first_block = self.next_block = from_block
        self._confirmations = confirmations
        self._rounds: dict[RoundNumber, RoundEvents] = {}
        self.published: dict[TaskId, TaskPublished] = {}
        self.dropped: set[TaskId] = set()
        self.over: set[TaskId] = set()

    def poll(self) -> None:
        """Read what has been confirmed since the last call."""
        end = self._arena.confirmed_block(self._confirmations)
        if end < self.next_block:
            return
        for event in self._arena.events(self.next_block, end):
            self._take(event)
        self.next_block = end + 1

    def round(self, number: RoundNumber) -> RoundEvents:
        """What is known of a round; empty where nothing is."""
        return self._rounds.setdefault(number, RoundEvents())

    def closed(self) -> list[tuple[RoundClosed, RoundEvents]]:
        """Every round that is closed: its end, and all that is known of it."""
        return [(events.closed, events) for events in self._rounds.values() if events.closed]

    def _take(self, event: Event) -> None:
        match event:
            case TaskPublished():
                self.published[event.task_id] = event
            case TaskDropped():
                self.dropped.add(event.task_id)
                self.over.add(event.task_id)
            case TaskCancelled():
                self.over.add(event.task_id)
            case DataKeyReleased():
                self.round(event.round).task_id = event.task_id
                self.round(event.round).data_key = event.data_key
            case TestOpened():
                self.round(event.round).test_key = event.test_key
            case Committed():
                self.round(event.round).commits[event.miner] = event
            case Revealed():
                self.round(event.round).reveals[event.miner] = event
            case Reported():
                self.round(event.round).reports[event.oracle] = event
            case RoundClosed():
                ended = self.round(event.round)
                ended.closed = event
                if ended.task_id is not None:
                    self.over.add(ended.task_id)
            case Reclaimed():
                self.round(event.round).reclaimed.add(event.miner)
            case _:
                pass
