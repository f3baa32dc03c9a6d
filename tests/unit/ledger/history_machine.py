"""Random histories, played on the contract and on the model of its rules at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ClassVar

from contract_twin import Twin
from history_cast import (
    ARENAS,
    CAST,
    MINERS,
    NAMES,
    Step,
    actors,
    miners,
    payments,
    roads,
    steps,
    words,
)
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from ledger_evms import Evm, Revm
from ledger_stage import CHAIN_ID, STRANGER, Stage, manifest_of, opening_key, salt_of

from pouw import hashing
from pouw.errors import Reverted
from pouw.events import RoundClosed, TaskDropped
from pouw.ledger.model import Call
from pouw.types import ZERO_ADDRESS, EntryState, Parameters, RoundNumber, TaskId, Verdict


class Histories(RuleBasedStateMachine):
    """One history; ``reached`` counts over all of them what was accepted and how rounds ended."""

    evm: type[Evm] = Revm
    twin: type[Twin] = Twin
    broken = True  # until it is deployed
    after: Callable[[], None] = staticmethod(lambda: None)
    reached: ClassVar[Counter[str]] = Counter()

    @initialize(arena=st.sampled_from(list(ARENAS)), taken=roads)
    def deploy(self, arena: str, taken: list[Step]) -> None:
        self.broken = False
        parameters: Parameters = ARENAS[arena]
        self.arena = type(self).twin(parameters, type(self).evm)
        self.stage = Stage(parameters, self.arena)
        self.start = self.stage.now
        self.reached[f"arena: {arena}"] += 1
        self._take(taken)

    # Rules

    @rule(taken=st.lists(steps, min_size=1, max_size=6))
    def go_on(self, taken: list[Step]) -> None:
        """The live round, or the selected task, takes the steps that its phase allows."""
        self._take(taken)

    def _take(self, taken: list[Step]) -> None:
        for step in taken:
            self.stage.now += step.dice % 2
            if self.arena.state.live:
                self._round_step(step)
            elif self.arena.state.selected:
                self._release(late=step.dice == 0)
            else:
                self._publish("publisher", 1_000_003, first=step.dice > 6, hint=0)

    @rule(
        who=st.sampled_from(("publisher", "Alice")),
        reward=st.sampled_from((2_000, 2_001, 30_007, 1_000_003, 2**90, 999)),
        first=st.booleans(),
        hint=st.integers(0, 8),
        task_id=st.integers(0, 6),
        change=st.sampled_from(("publish", "publish", "top_up", "cancel")),
    )
    def change_pool(
        self, who: str, reward: int, first: bool, hint: int, task_id: int, change: str
    ) -> None:
        """A task comes, rises or goes."""
        pool = list(self.arena.pool)
        if change == "publish" or not pool:
            self._publish(who, reward, first=first, hint=hint)
            return
        task_id = pool[task_id % len(pool)] if task_id < 6 else self.arena.state.tasks
        task = self.arena.tasks.get(TaskId(task_id))
        who = NAMES[task.publisher] if first and task else who
        if change == "cancel":
            self._call("cancel", who, task_id)
        else:
            self._call("top_up", who, task_id, reward - 999, hint=hint)

    @rule(miner=miners, who=actors, back=st.integers(0, 1), withdraws=st.booleans())
    def collect(self, miner: str, who: str, back: int, withdraws: bool) -> None:
        """A bond is reclaimed, a credit withdrawn; by who has one, if anybody has."""
        creditors = [each for each in CAST if self.arena.books.credits[CAST[each].address]]
        if withdraws and creditors:
            who = who if who in creditors else creditors[0]
            self._call("withdraw", who, STRANGER.address)
            return
        waiting = [
            (number, each)
            for number in self._closed()[-2:]
            for each in MINERS
            if self._state(number, each) is EntryState.REVEALED
        ]
        number, miner = waiting[back % len(waiting)] if waiting else (self.stage.number, miner)
        self._call("reclaim", who, number, CAST[miner].address)

    @rule(ahead=st.integers(0, 7), offset=st.sampled_from((-1, 0, 1)), silence=st.integers(0, 50))
    def wait(self, ahead: int, offset: int, silence: int) -> None:
        """Until an edge of a window, or for long."""
        times = self._boundaries()
        if silence == 50:
            self.stage.now += 365 * 24 * 3600
        elif times:
            self.stage.now = max(self.stage.now, times[ahead % len(times)] + offset)

    @rule(
        name=st.sampled_from(
            ("sync", "finalize", "reclaim", "withdraw", "commit", "open_test", "release_data_key")
        ),
        who=actors,
        number=st.integers(0, 4),
        miner=miners,
        word=words,
        real=st.booleans(),
    )
    def anything(
        self, name: str, who: str, number: int, miner: str, word: bytes, real: bool
    ) -> None:
        """Any call that brings no money, by anybody, at any time."""
        number = self.stage.number if real else number
        arguments: dict[str, tuple[object, ...]] = {
            "reclaim": (number, CAST[miner].address),
            "withdraw": (CAST[who].address if real else ZERO_ADDRESS,),
            "commit": (number, self._commitment(miner) if real else word),
            "open_test": (opening_key(number) if real else word,),
            "release_data_key": (self._data_key() if real else word,),
        }
        self._call(name, who, *arguments.get(name, ()))

    @rule(
        name=st.sampled_from(("publish", "reveal", "challenge", "report", "rule")),
        who=actors,
        miner=miners,
        claim=st.sampled_from((500_000, 499_999, 1_000_000, 1_000_001)),
        verdict=st.sampled_from(Verdict),
        payment=payments,
        fit=st.booleans(),
    )
    def in_anothers_place(
        self,
        name: str,
        who: str,
        miner: str,
        claim: int,
        verdict: Verdict,
        payment: int | None,
        fit: bool,
    ) -> None:
        """Calls on the round by whoever, with whatever money, model and verdict."""
        number = self.stage.number
        if name == "publish":
            self._publish(who, 5_000, first=fit, hint=0, payment=payment, min_score=claim)
        elif name == "reveal":
            self._reveal(who, miner, miner if fit else who, claim, payment)
        elif name == "challenge":
            self._call("challenge", who, number, payment=payment)
        else:
            named = CAST[miner].address if fit else ZERO_ADDRESS
            self._call(name, who, number, verdict, named, hashing.sha256(b"evidence"))

    def teardown(self) -> None:
        """Pool, headers and balances agree; the events alone lead to the contract's storage."""
        if self.broken:
            return
        self.arena.agree()
        self.arena.rebuilt()
        type(self).after()
        self.reached["sequences"] += 1
        self.reached["calls compared"] += self.arena.compared
        for event in self.arena.logs:
            if isinstance(event, TaskDropped):
                self.reached["dropped"] += 1
            elif isinstance(event, RoundClosed):
                self.reached[self._ending(event)] += 1

    # Steps

    def _round_step(self, step: Step) -> None:
        number, now = self.stage.number, self.stage.now
        limits, this = self.stage.deadlines, self.arena.rounds[number]
        if now < limits.t1:
            if step.dice < 3:
                self._wait_for(limits.t1)
            else:
                self._call("commit", step.miner, number, self._commitment(step.miner))
        elif not this.opened:
            if step.dice == 0:
                self._wait_for(limits.t2)
                self._call("finalize", "stranger")
            self._call("open_test", "publisher", opening_key(this.task_id))
        elif now < limits.t3 and step.dice > 1 and (waiting := self._unrevealed()):
            miner = step.miner if step.miner in waiting else waiting[0]
            self._reveal(miner, miner, miner, step.claim)
        elif now < limits.t4 and step.dice > 1 and (silent := self._silent_oracles()):
            self._wait_for(limits.t3)
            self._decide("report", silent[step.seat % len(silent)], step, agreed=step.dice < 8)
        else:
            self._end_round(step)

    def _end_round(self, step: Step) -> None:
        """Challenge and ruling, or neither; then whoever closes."""
        number, dice = self.stage.number, step.dice
        limits, this = self.stage.deadlines, self.arena.rounds[number]
        self._wait_for(limits.t4)
        if self.stage.now < limits.t5 and not this.challenged and dice % 2:
            self._call("challenge", "Dave", number)
        elif this.challenged and not this.ruled and self.stage.now < limits.t6 and dice % 3:
            self._decide("rule", "arbiter", step, agreed=dice > 6)
        else:
            if dice % 3 == 0:
                self._wait_for(limits.t5 - dice % 2)
                self._call("finalize", "stranger")
            self._wait_for(limits.t6 if this.challenged and not this.ruled else limits.t5)
            if dice < 6 or not self.arena.state.selected:
                self._call("finalize", "stranger")
            else:
                self._release(late=False)
            if dice > 3:
                for miner in MINERS:
                    if self._state(number, miner) is EntryState.REVEALED:
                        self._call("reclaim", "stranger", number, CAST[miner].address)

    def _reveal(
        self, who: str, miner: str, signer: str, claim: int, payment: int | None = None
    ) -> None:
        """``who`` shows what ``miner`` trained, signed by ``signer``."""
        content = (manifest_of(CAST[miner]), claim, salt_of(CAST[miner]))
        signature = self.stage.signature(CAST[signer], claim)
        self._call("reveal", who, self.stage.number, *content, signature, payment=payment)

    def _release(self, *, late: bool) -> None:
        state, p = self.arena.state, self.arena.parameters
        opens = state.selected_at + p.phase2
        self._wait_for(opens + p.key_window if late else opens)
        self._call("release_data_key", "publisher", self._data_key())

    def _decide(self, name: str, who: str, step: Step, *, agreed: bool) -> None:
        """A vote or ruling; ``agreed``: that of the round's first vote, if there is one."""
        number = self.stage.number
        votes = [vote for vote, seats in self.arena.votes.items() if vote[0] == number and seats]
        revealers = [
            CAST[each].address
            for each in MINERS
            if self._state(number, each) is EntryState.REVEALED
        ]
        verdict, winner = step.verdict, CAST[step.winner].address
        if verdict is not Verdict.WINNER:
            winner = ZERO_ADDRESS
        elif winner not in revealers:
            winner = revealers[0] if revealers else winner
        if agreed and votes:
            _, verdict, winner = votes[0]
        self._call(name, who, number, verdict, winner, hashing.sha256(b"evidence"))

    def _publish(
        self,
        who: str,
        reward: int,
        *,
        first: bool,
        hint: int,
        payment: int | None = None,
        min_score: int = 500_000,
    ) -> None:
        task_id = self.arena.state.tasks + 1
        spec = hashing.sha256(b"spec" + task_id.to_bytes(4))
        key = hashing.key_hash_of(opening_key(task_id))
        task = (spec, key, min_score, first, reward)
        self._call("publish", who, *task, hint=hint, payment=payment)

    def _call(
        self,
        name: str,
        who: str,
        *arguments: object,
        hint: int = 0,
        payment: int | None = None,
    ) -> None:
        at = self.stage.now - self.start
        shown = ", ".join(_short(argument) for argument in arguments)
        self.arena.hint = hint
        method: Callable[..., object] = getattr(self.arena, name)
        try:
            method(Call(CAST[who].address, self.stage.now, payment), *arguments)
        except AssertionError:
            self.broken = True
            note(f"+{at} s: {who}: {name}({shown}): here they differ")
            raise
        except Reverted as error:
            note(f"+{at} s: {who}: {name}({shown}): {error.name}")
            self.reached[f"{name}: {error.name}"] += 1
        else:
            note(f"+{at} s: {who}: {name}({shown})")
            self.reached[name] += 1

    # Where things stand

    def _closed(self) -> list[int]:
        return [number for number, this in self.arena.rounds.items() if this.closed]

    def _state(self, number: int, miner: str) -> EntryState:
        return self.arena.entry(RoundNumber(number), CAST[miner].address).state

    def _unrevealed(self) -> list[str]:
        """Miners who committed in the live round and did not reveal yet."""
        number = self.stage.number
        return [each for each in MINERS if self._state(number, each) is EntryState.COMMITTED]

    def _silent_oracles(self) -> list[str]:
        voted = self.arena.rounds[self.stage.number].voted
        seats = len(self.arena.parameters.oracles)
        return [f"oracle {seat}" for seat in range(seats) if not voted >> seat & 1]

    def _boundaries(self) -> list[int]:
        """Every time ahead at which something begins or ends, the next first."""
        state, now = self.arena.state, self.stage.now
        times: list[int] = []
        if state.live:
            limits = self.stage.deadlines
            times += [limits.t1, limits.t2, limits.t3, limits.t4, limits.t5, limits.t6]
        if state.selected:
            opens = state.selected_at + self.arena.parameters.phase2
            times += [opens, opens + self.arena.parameters.key_window]
        return sorted({each for each in times if each > now})

    def _wait_for(self, moment: int) -> None:
        self.stage.now = max(self.stage.now, moment)

    def _data_key(self) -> bytes:
        return hashing.data_key_of(opening_key(self.arena.state.selected))

    def _commitment(self, miner: str) -> bytes:
        return hashing.commitment(
            CHAIN_ID,
            self.arena.address,
            self.stage.number,
            CAST[miner].address,
            manifest_of(CAST[miner]),
            salt_of(CAST[miner]),
        )

    def _ending(self, closed: RoundClosed) -> str:
        this = self.arena.rounds[closed.round]
        how = "not opened" if not this.opened else this.verdict.name.lower().replace("_", " ")
        ruling = ", changed" if this.changed else ", confirmed" if this.ruled else ""
        silent = ", silent arbiter" if this.challenged and not this.ruled else ""
        return f"closed: {how}{ruling}{silent}"


def _short(argument: object) -> str:
    if isinstance(argument, bytes):
        return "0x" + argument[:3].hex() + "…"
    if isinstance(argument, str) and argument.startswith("0x"):
        return argument[:8] + "…"
    return str(argument)
