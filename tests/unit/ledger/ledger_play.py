"""Random plays that get somewhere: mostly what the phase allows, sometimes what it forbids."""

from __future__ import annotations

import random
from collections.abc import Callable

from ledger_stage import (
    ALICE,
    ARBITER,
    BOB,
    CAROL,
    DAVE,
    ORACLES,
    PUBLISHER,
    STRANGER,
    Actor,
    Stage,
)

from pouw.errors import Reverted
from pouw.types import EntryState, Verdict

MINERS = (ALICE, BOB, CAROL)
CLAIMS = (500_000, 700_000, 900_000)
ALL = (PUBLISHER, *MINERS, DAVE, ARBITER, *ORACLES)


class Play:
    """A seeded sequence of calls on a stage; ``reached`` counts what was accepted."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.seed = seed
        self.random = random.Random(seed)
        self.reached: dict[str, int] = {}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._let_time_pass()
            likely = self._likely()
            name = self.random.choice(likely if self.random.random() < 0.85 else list(_MOVES))
            try:
                _MOVES[name](self)
            except Reverted:
                continue
            self.reached[name] = self.reached.get(name, 0) + 1

    def boundaries(self) -> list[int]:
        """Every time ahead at which something begins or ends."""
        stage, state = self.stage, self.stage.arena.state
        times: list[int] = []
        if state.live:
            limits = stage.deadlines
            times += [limits.t1, limits.t2, limits.t3, limits.t4, limits.t5, limits.t6]
        if state.selected:
            opens = state.selected_at + stage.parameters.phase2
            times += [opens, opens + stage.parameters.key_window]
        return sorted(time for time in times if time > stage.now)

    def _let_time_pass(self) -> None:
        ahead = self.boundaries()
        roll = self.random.random()
        if roll < 0.35 and ahead:
            self.stage.now = ahead[0] - (roll < 0.1)
        elif roll < 0.7:
            self.stage.now += 1

    def _likely(self) -> list[str]:
        stage, state = self.stage, self.stage.arena.state
        if not state.live:
            return ["release", "reclaim", "withdraw"] if state.selected else ["publish"]
        limits, this = stage.deadlines, stage.arena.rounds[stage.number]
        if stage.now < limits.t1:
            return ["commit", "commit", "publish", "top_up", "cancel"]
        if not this.opened:
            return ["open"] * 4 + ["publish", "cancel", "finalize"]
        if stage.now < limits.t3:
            return ["reveal"] * 4 + ["publish", "top_up"]
        if stage.now < limits.t4:
            return ["vote", "vote", "vote", "reveal"]
        if stage.now < limits.t5:
            return ["challenge", "challenge", "rule"]
        return ["rule", "finalize", "release"]

    def _who(self, *actors: Actor) -> Actor:
        return self.random.choice(actors)

    def publish(self) -> None:
        reward = self.random.choice((999, 2_000, 2_000, 30_007, 1_000_003))
        self.stage.publish(reward, first=self.random.random() < 0.3)

    def top_up(self) -> None:
        task_id = self.random.randint(1, self.stage.arena.state.tasks + 1)
        amount = self.random.choice((0, 1, 28_007))
        who = self._who(PUBLISHER, PUBLISHER, ALICE)
        self.stage.arena.top_up(self.stage.call(who), task_id, amount)

    def cancel(self) -> None:
        task_id = self.random.randint(1, self.stage.arena.state.tasks + 1)
        self.stage.arena.cancel(self.stage.call(self._who(PUBLISHER, PUBLISHER, ALICE)), task_id)

    def release(self) -> None:
        self.stage.release()

    def commit(self) -> None:
        self.stage.commit(self._who(*MINERS))

    def open(self) -> None:
        if self.stage.number:
            self.stage.open()

    def reveal(self) -> None:
        ready = [
            miner
            for miner in MINERS
            if self.stage.arena.entry(self.stage.number, miner.address).state
            is EntryState.COMMITTED
        ]
        who = self._who(*(ready or MINERS))
        self.stage.reveal(who, self.random.choice((*CLAIMS, 499_999)))

    def vote(self) -> None:
        if self.stage.number:
            verdict, winner = self._opinion()
            self.stage.vote(self._who(*ORACLES), verdict, winner)

    def challenge(self) -> None:
        if self.stage.number:
            self.stage.challenge(self._who(DAVE, PUBLISHER))

    def rule(self) -> None:
        self.stage.rule(*self._opinion())

    def finalize(self) -> None:
        self.stage.arena.finalize(self.stage.call(STRANGER))

    def sync(self) -> None:
        self.stage.arena.sync(self.stage.call(STRANGER))

    def reclaim(self) -> None:
        number = self.random.randint(0, self.stage.number)
        miner = self._who(*MINERS).address
        self.stage.arena.reclaim(self.stage.call(STRANGER), number, miner)

    def withdraw(self) -> None:
        who = self._who(*ALL)
        self.stage.arena.withdraw(self.stage.call(who), who.address)

    def _opinion(self) -> tuple[Verdict, Actor | None]:
        """Mostly the same for everybody in a round, so that quorums happen."""
        shared = random.Random(f"{self.seed} {self.stage.number}")
        source = shared if self.random.random() < 0.75 else self.random
        verdict = source.choice(
            (Verdict.WINNER,) * 4 + (Verdict.NO_TRUE_CLAIM, Verdict.INVALID, Verdict.NONE)
        )
        return verdict, source.choice(MINERS) if verdict is Verdict.WINNER else None


_MOVES: dict[str, Callable[[Play], None]] = {
    name: getattr(Play, name)
    for name in (
        "publish",
        "top_up",
        "cancel",
        "release",
        "commit",
        "open",
        "reveal",
        "vote",
        "challenge",
        "rule",
        "finalize",
        "sync",
        "reclaim",
        "withdraw",
    )
}
