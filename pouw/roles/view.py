"""What a role sees of the arena at one moment, and where in time that is."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pouw.chain.reading import TRUSTED_SECONDS, ArenaReader, snapshot
from pouw.types import ArenaState, Deadlines, Parameters, Phase, Round, Task


class Chore(enum.StrEnum):
    """A call that is open to anybody and moves the arena on."""

    FINALIZE = "close the round"
    SYNC = "drop the selected task"


@dataclass(frozen=True, slots=True)
class View:
    """The arena at one block.

    Times are in seconds since the epoch. ``now`` is what to wait by and ``contract_now`` what the
    contract sees, as `Clock` has them: whether a call comes too late, or changes anything, is for
    the contract's clock alone. ``confirmed`` is the time of the newest block with enough
    confirmations. ``round`` is the last round, live or closed, ``task`` the task it runs.
    ``ahead``: seconds that this machine's clock is ahead of the contract's; below 0: behind.
    """

    now: int
    contract_now: int
    confirmed: int
    parameters: Parameters
    state: ArenaState
    selected: Task | None
    round: Round | None
    task: Task | None
    ahead: int = 0

    @property
    def behind(self) -> int:
        """Seconds to add to this machine's clock where it is not to be trusted, else 0."""
        return 0 if 0 <= self.ahead <= TRUSTED_SECONDS else -self.ahead

    @property
    def live(self) -> Round | None:
        """The round that is not closed."""
        return self.round if self.state.live else None

    @property
    def deadlines(self) -> Deadlines | None:
        """The boundaries of the live round."""
        return Deadlines.of(self.live.t0, self.parameters) if self.live else None

    @property
    def opens(self) -> int | None:
        """When the selected task's data key may be released."""
        return self.state.selected_at + self.parameters.phase2 if self.selected else None

    @property
    def closes(self) -> int | None:
        """When the selected task is dropped if its data key has not come."""
        return None if self.opens is None else self.opens + self.parameters.key_window

    @property
    def decided_at(self) -> int | None:
        """When the live round can be closed, as far as is known now (DESIGN: ``decided``)."""
        live, at = self.live, self.deadlines
        if live is None or at is None:
            return None
        if not live.opened:
            return at.t2
        if live.ruled:
            return at.t4
        return at.t6 if live.challenged else at.t5

    @property
    def decided(self) -> bool:
        """Whether the live round may be closed."""
        return self.decided_at is not None and self.contract_now >= self.decided_at

    def chore(self, patience_seconds: int) -> Chore | None:
        """What anybody may do for all, once it waited so long for whoever it concerns most."""
        if self.decided_at is not None and self.contract_now >= self.decided_at + patience_seconds:
            return Chore.FINALIZE
        if self.closes is not None and self.contract_now >= self.closes + patience_seconds:
            return Chore.SYNC
        return None

    @property
    def phase(self) -> Phase:
        """Where the arena stands; of a live round as long as there is one."""
        at = self.deadlines
        if at is None:
            if self.opens is None:
                return Phase.IDLE
            return Phase.SELECTED if self.now < self.opens else Phase.KEY
        if self.decided:
            return Phase.DECIDED
        for end, phase in (
            (at.t1, Phase.PHASE1),
            (at.t2, Phase.OPEN),
            (at.t3, Phase.REVEAL),
            (at.t4, Phase.REPORT),
            (at.t5, Phase.CHALLENGE),
        ):
            if self.now < end:
                return phase
        return Phase.RULING

    def next_boundary(self) -> tuple[str, int] | None:
        """The next moment at which something can change by itself: its name and its time."""
        at = self.deadlines
        moments: list[tuple[str, int]] = []
        if at is not None:
            moments += [
                ("commits end, the test set may be opened", at.t1),
                ("the test set must be open, reveals go on", at.t2),
                ("reveals end, oracles report", at.t3),
                ("reports end", at.t4),
                ("challenges end", at.t5),
                ("the round is decided", at.t6),
            ]
        if self.opens is not None and self.closes is not None:
            moments += [
                ("the data key may be released", self.opens),
                ("the selected task is dropped", self.closes),
            ]
        ahead = [moment for moment in moments if moment[1] > self.now]
        return min(ahead, key=lambda moment: moment[1]) if ahead else None


def read_view(arena: ArenaReader, confirmations: int) -> View:
    """The arena as of the latest block; ChainUnavailable where the endpoint does not answer."""
    seen = snapshot(arena)
    confirmed = arena.endpoint.timestamp(arena.confirmed_block(confirmations))
    return View(
        now=seen.clock.now,
        contract_now=seen.clock.contract,
        confirmed=confirmed,
        parameters=arena.parameters(),
        state=seen.state,
        selected=seen.selected,
        round=seen.round,
        task=seen.task,
        ahead=seen.clock.ahead,
    )
