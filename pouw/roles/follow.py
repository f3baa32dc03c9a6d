"""The arena's past as a node reads it: from its own index, which follows the chain first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pouw.chain.index import EventIndex
from pouw.events import Event
from pouw.ledger.history import History
from pouw.ledger.replay import replay
from pouw.roles.base import Observer

_SAY_EVERY = 1_000

Progress = Callable[[str, int, int], None]


def read_history(observer: Observer) -> History:
    """The arena's history from its events, every rule checked on the way."""
    with follow(observer) as events:
        arena = observer.arena
        return replay(events, arena.parameters(), arena.chain_id, arena.address)


@contextmanager
def follow(observer: Observer, progress: Progress | None = None) -> Iterator[Iterator[Event]]:
    """The confirmed events in order, from the node's index, which follows the chain first."""
    say = progress or (lambda _stage, _done, _total: None)
    index = EventIndex(observer.home, observer.arena, observer.from_block)
    try:
        index.sync(observer.confirmations, partial(say, "read the chain"))
        total = index.count()
        say("replay", 0, total)
        yield _counted(index.events(), lambda done: say("replay", done, total))
    finally:
        index.close()


def _counted(events: Iterator[Event], say: Callable[[int], None]) -> Iterator[Event]:
    for done, event in enumerate(events, 1):
        yield event
        if done % _SAY_EVERY == 0:
            say(done)
