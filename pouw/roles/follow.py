"""The arena's past as a node reads it: from its own index, which follows the chain first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pouw.chain.index import EventIndex
from pouw.errors import LedgerError
from pouw.events import Event
from pouw.ledger.history import History, Rule
from pouw.ledger.replay import replay
from pouw.roles.base import Observer

_SAY_EVERY = 1_000

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Followed:
    """The confirmed events in order, and what the contract itself holds behind the last of them.

    ``block``: up to which the chain was read, whether or not it has an event of the arena; None
    where no block is confirmed yet. ``held``: the contract's rolling hashes as of that block.
    """

    events: Iterator[Event]
    block: int | None
    held: dict[Rule, bytes]
    index: Path

    def differences(self, history: History) -> list[tuple[Rule, str]]:
        """Where the events tell something else than the contract holds."""
        told = {Rule.POOL_HISTORY: history.pool_history, Rule.HEADER: history.last_header}
        return [
            (
                rule,
                f"the events up to block {self.block} give 0x{told[rule].hex()}, "
                f"the contract holds 0x{held.hex()}: were events left out? Remove {self.index} "
                "and ask another endpoint",
            )
            for rule, held in self.held.items()
            if told[rule] != held
        ]


def read_history(observer: Observer) -> History:
    """The arena's history from its events, every rule checked on the way.

    LedgerError where a rule is broken, or where the contract holds something else.
    """
    with follow(observer) as followed:
        arena = observer.arena
        history = replay(followed.events, arena.parameters(), arena.chain_id, arena.address)
        broken = [str(finding) for finding in history.findings]
        broken += [f"{rule}: {detail}" for rule, detail in followed.differences(history)]
    if broken:
        raise LedgerError(
            f"this history is not true: {broken[0]}",
            hint="`pouw node audit` names all that is wrong with it",
        )
    return history


@contextmanager
def follow(observer: Observer, progress: Progress | None = None) -> Iterator[Followed]:
    """The confirmed events from the node's index, which follows the chain first."""
    say = progress or (lambda _stage, _done, _total: None)
    arena = observer.arena
    index = EventIndex(observer.home, arena, observer.from_block)
    try:
        index.sync(observer.confirmations, partial(say, "read the chain"))
        block, held = index.block, {}
        if block is not None:
            # Asked now: an endpoint without an archive forgets the state while models are scored.
            held[Rule.POOL_HISTORY] = arena.pool_history(block)
            held[Rule.HEADER] = arena.last_header(block)
        total = index.count()
        say("replay", 0, total)
        told = _counted(index.events(), lambda done: say("replay", done, total))
        yield Followed(told, block, held, index.path)
    finally:
        index.close()


def _counted(events: Iterator[Event], say: Callable[[int], None]) -> Iterator[Event]:
    for done, event in enumerate(events, 1):
        yield event
        if done % _SAY_EVERY == 0:
            say(done)
