"""What happens on chain, as lines that a person can follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pouw import events
from pouw.cli.output import amount, score
from pouw.types import ZERO_ADDRESS, Verdict

if TYPE_CHECKING:
    from pouw.chain.reading import ArenaReader
    from pouw.cli.demo.cast import Cast

_VERDICTS = {
    Verdict.NONE: "no outcome",
    Verdict.WINNER: "winner",
    Verdict.NO_TRUE_CLAIM: "no true claim",
    Verdict.INVALID: "invalid task",
}


class Chronicle:
    """Reads the arena's events once each and keeps what the demo waits for."""

    def __init__(self, arena: ArenaReader, cast: Cast, from_block: int) -> None:
        self._arena = arena
        self._cast = cast
        self._next = from_block
        self.closed: set[int] = set()
        self.unsettled: set[tuple[int, str]] = set()

    def read(self) -> list[str]:
        """What has happened since the last call."""
        end = self._arena.confirmed_block(1)
        if end < self._next:
            return []
        found = self._arena.events(self._next, end)
        self._next = end + 1
        return [line for event in found if (line := self._line(event))]

    def _line(self, event: events.Event) -> str | None:
        who = self._cast.name_of
        match event:
            case events.TaskPublished():
                return (
                    f"{who(event.publisher)} publishes task {event.task_id} "
                    f"for {amount(event.reward)}"
                )
            case events.TaskSelected():
                return f"the arena selects task {event.task_id}"
            case events.TaskDropped():
                return f"task {event.task_id} is dropped: its data key did not come"
            case events.DataKeyReleased():
                return (
                    f"round {event.round} begins: the key to the training data of task "
                    f"{event.task_id} is out"
                )
            case events.Committed():
                return f"{who(event.miner)} commits in round {event.round}"
            case events.TestOpened():
                return f"the test set of round {event.round} is open"
            case events.Revealed():
                self.unsettled.add((event.round, event.miner))
                return f"{who(event.miner)} reveals and claims Dice {score(event.claimed_score)}"
            case events.Reported():
                return f"{who(event.oracle)} votes: {self._verdict(event.verdict, event.winner)}"
            case events.RoundClosed():
                self.closed.add(event.round)
                verdict = self._verdict(event.verdict, event.winner)
                return f"round {event.round} is closed: {verdict}"
            case events.Reclaimed():
                self.unsettled.discard((event.round, event.miner))
                fate = "is burned" if event.burned else "goes back"
                return f"the bond of {who(event.miner)} in round {event.round} {fate}"
            case events.Withdrawn():
                return f"{who(event.account)} withdraws {amount(event.amount)}"
        return None

    def _verdict(self, verdict: Verdict, winner: str) -> str:
        if winner == ZERO_ADDRESS:
            return _VERDICTS[verdict]
        return f"{_VERDICTS[verdict]} {self._cast.name_of(winner)}"
