"""One round under replay: collects its events and reports those that break a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pouw import events, hashing
from pouw.ledger import rules
from pouw.ledger.history import (
    CommitmentRecord,
    RevealRecord,
    RoundRecord,
    Rule,
    RulingRecord,
    Selection,
    TaskRecord,
    VoteRecord,
)
from pouw.types import (
    SCORE_ONE_PPM,
    ZERO_ADDRESS,
    ZERO_WORD,
    Address,
    Deadlines,
    Header,
    Parameters,
    RoundNumber,
    TaskId,
    Verdict,
    rank_key,
)

NO_DIGEST = bytes(22)


@dataclass(frozen=True, slots=True)
class Site:
    """Which arena the logs come from; ``domain`` is its EIP-712 domain separator."""

    parameters: Parameters
    chain_id: int
    arena: Address
    domain: bytes


@dataclass(slots=True)
class Clock:
    """The latest time that the logs prove: most carry none, but imply that a window had begun."""

    time: int = 0

    def reach(self, time: int) -> None:
        """It is ``time`` at least."""
        self.time = max(self.time, time)


@dataclass(frozen=True, slots=True)
class Settled:
    """A closed round of which only the bonds not reclaimed yet matter: True where burned."""

    report: Callable[[Rule, str], None]
    number: RoundNumber
    task_id: TaskId
    bonds: dict[Address, bool]

    def reclaim(self, event: events.Reclaimed) -> bool | None:
        """As `RoundLog.reclaim`."""
        burned = _reclaimed(event, self.bonds, self.report)
        self.bonds.pop(event.miner, None)
        return burned


def _reclaimed(
    event: events.Reclaimed, bonds: Mapping[Address, bool], report: Callable[[Rule, str], None]
) -> bool | None:
    burned = bonds.get(event.miner)
    if burned is None:
        report(Rule.RECLAIM, f"{event.miner} has no bond to reclaim")
    elif burned != event.burned:
        report(Rule.RECLAIM, f"{event.miner}'s bond: burned is {event.burned}, not so")
    return burned


@dataclass(slots=True)
class RoundLog:
    """What is known of a round so far; ``report(rule, detail)`` takes a finding."""

    site: Site
    report: Callable[[Rule, str], None]
    number: RoundNumber
    task: TaskRecord
    selection: Selection
    data_key: bytes
    deadlines: Deadlines
    clock: Clock
    block_number: int
    test_key: bytes | None = None
    commitments: dict[Address, CommitmentRecord] = field(default_factory=dict)
    reveals: dict[Address, RevealRecord] = field(default_factory=dict)
    votes: dict[Address, VoteRecord] = field(default_factory=dict)
    challenger: Address | None = None
    ruling: RulingRecord | None = None
    closed: events.RoundClosed | None = None
    header: Header | None = None
    reclaimed: dict[Address, bool] = field(default_factory=dict)

    def committed(self, event: events.Committed) -> None:
        """A commitment counts in Phase 1 only; the last one replaces those before."""
        time, limits = event.committed_at, self.deadlines
        if max(limits.t0, self.clock.time) <= time < limits.t1:
            self.clock.reach(time)
        else:
            self.report(
                Rule.COMMIT_TIME,
                f"{event.miner} committed at {time}, "
                f"not from {max(limits.t0, self.clock.time)} to before {limits.t1}",
            )
        self.commitments[event.miner] = CommitmentRecord(
            event.miner, event.commitment, time, event.block_number
        )

    def test_opened(self, event: events.TestOpened) -> None:
        """The test key opens the chain of keys, once."""
        if self.test_key is not None:
            self.report(Rule.KEYS, "the test set was opened twice")
        if hashing.data_key_of(event.test_key) != self.data_key:
            self.report(Rule.KEYS, "the test key does not hash to the data key")
        self._reached(self.deadlines.t1, self.deadlines.t2, "test set opened")
        self.test_key = event.test_key

    def revealed(self, event: events.Revealed) -> None:
        """A reveal opens the miner's last commitment and is signed by the miner."""
        miner, site = event.miner, self.site
        self._require_open(f"{miner} revealed")
        self._reached(self.deadlines.t1, self.deadlines.t3, f"{miner} revealed")
        if not self.task.min_score <= event.claimed_score <= SCORE_ONE_PPM:
            self.report(
                Rule.CLAIM,
                f"{miner} claims {event.claimed_score} ppm, the minimum is {self.task.min_score}",
            )
        if miner in self.reveals:
            self.report(Rule.COMMITMENT, f"{miner} revealed twice")
        opened = hashing.commitment(
            site.chain_id, site.arena, self.number, miner, event.manifest_digest, event.salt
        )
        commitment = self.commitments.get(miner)
        if commitment is None:
            self.report(Rule.COMMITMENT, f"{miner} revealed without a commitment")
        elif commitment.commitment[:22] != opened[:22]:
            self.report(Rule.COMMITMENT, f"{miner}'s reveal does not open the last commitment")
        signed = hashing.reveal_hash(
            site.domain, self.number, miner, event.manifest_digest, event.claimed_score
        )
        if hashing.recover_signer(signed, event.signature) != miner:
            self.report(Rule.SIGNATURE, f"{miner}'s reveal is not signed by the miner")
        self.reveals[miner] = RevealRecord(
            miner=miner,
            claim=event.claimed_score,
            committed_at=commitment.committed_at if commitment else self.deadlines.t1,
            manifest_digest=event.manifest_digest,
            salt=event.salt,
            signature=event.signature,
            digest=hashing.reveal_digest(event.manifest_digest, event.signature),
            block_number=event.block_number,
        )

    def reported(self, event: events.Reported) -> None:
        """Each oracle votes once, for what can be after the reveals."""
        oracle = event.oracle
        self._require_open(f"{oracle} voted")
        self._reached(self.deadlines.t3, self.deadlines.t4, f"{oracle} voted")
        if oracle not in self.site.parameters.oracles:
            self.report(Rule.VOTE, f"{oracle} is not of the committee")
            return
        if oracle in self.votes:
            self.report(Rule.VOTE, f"{oracle} voted twice")
            return
        if not rules.verdict_fits(event.verdict, event.winner, self.reveals):
            self.report(Rule.VOTE, f"{oracle}'s vote does not fit what was revealed")
        self.votes[oracle] = VoteRecord(
            oracle, event.verdict, event.winner, event.evidence_digest, event.block_number
        )

    def challenged(self, event: events.Challenged) -> None:
        """One challenge, where there is an arbiter."""
        self._require_open(f"{event.challenger} challenged")
        self._reached(self.deadlines.t4, self.deadlines.t5, f"{event.challenger} challenged")
        if self.site.parameters.arbiter == ZERO_ADDRESS:
            self.report(Rule.CHALLENGE, "a challenge in an arena without an arbiter")
        if self.challenger is not None:
            self.report(Rule.CHALLENGE, "the round was challenged twice")
        self.challenger = event.challenger

    def ruled(self, event: events.Ruled) -> None:
        """One ruling, on a challenge."""
        self._reached(self.deadlines.t4, self.deadlines.t6, "the arbiter ruled")
        if self.challenger is None:
            self.report(Rule.RULING, "a ruling on a round that nobody challenged")
        if self.ruling is not None:
            self.report(Rule.RULING, "a second ruling")
        if not rules.verdict_fits(event.verdict, event.winner, self.reveals):
            self.report(Rule.RULING, "the ruling does not fit what was revealed")
        verdict, winner, _ = self.quorum()
        changed = (verdict, winner) != (event.verdict, event.winner)
        if changed != event.changed:
            self.report(Rule.RULING, f"the ruling says changed={event.changed}, it is {changed}")
        self.ruling = RulingRecord(event.verdict, event.winner, event.evidence_digest, changed)

    def close(self, event: events.RoundClosed) -> None:
        """A round closes once decided, with the outcome of its votes or of its ruling."""
        self.closed = event
        verdict, winner, evidence = self.result()
        if (event.verdict, event.winner) != (verdict, winner):
            self.report(
                Rule.OUTCOME,
                f"closed with {event.verdict.name} {event.winner}, "
                f"the votes say {verdict.name} {winner}",
            )
        if event.evidence_digest != evidence:
            self.report(Rule.EVIDENCE, "the evidence digest is not that of the outcome")
        won = self.reveals.get(winner)
        if event.score != (won.claim if won else 0):
            self.report(Rule.SCORE, f"closed with {event.score} ppm, not the winner's claim")
        if event.reveal_digest != (won.digest if won else NO_DIGEST):
            self.report(Rule.REVEAL_DIGEST, "the reveal digest is not that of the winner's reveal")
        if event.closed_at < self.clock.time or not rules.decided(
            self.deadlines,
            event.closed_at,
            opened=self.test_key is not None,
            challenged=self.challenger is not None,
            ruled=self.ruling is not None,
        ):
            self.report(Rule.CLOSING, f"closed at {event.closed_at}, before it was decided")
        self.clock.reach(event.closed_at)

    def reclaim(self, event: events.Reclaimed) -> bool | None:
        """Whether the bond had to be burned; None where there was none to reclaim."""
        bonds = self.bonds() if self.closed is not None else {}
        burned = _reclaimed(event, bonds, self.report)
        if burned is not None:
            self.reclaimed[event.miner] = burned
        return burned

    def bonds(self) -> dict[Address, bool]:
        """Who can reclaim a bond, and whether it is burned."""
        verdict, winner, _ = self.result()
        won = self.reveals.get(winner)
        best = self._rank(won) if won else None
        return {
            miner: rules.bond_burned(verdict, self._rank(reveal), best)
            for miner, reveal in self.reveals.items()
            if miner not in self.reclaimed
        }

    def settled(self) -> Settled:
        """What is left of the round once it is closed."""
        return Settled(self.report, self.number, self.task.task_id, self.bonds())

    def quorum(self) -> tuple[Verdict, Address, bytes]:
        """Verdict, winner and evidence digest of the vote that completed the committee's quorum."""
        counted: dict[tuple[Verdict, Address], int] = {}
        for vote in self.votes.values():
            key = (vote.verdict, vote.winner)
            counted[key] = counted.get(key, 0) + 1
            if counted[key] == self.site.parameters.threshold:
                return (*key, vote.evidence_digest)
        return (Verdict.NONE, ZERO_ADDRESS, ZERO_WORD)

    def result(self) -> tuple[Verdict, Address, bytes]:
        """Verdict, winner and evidence digest: the ruling's, else the committee's."""
        if self.ruling is not None:
            return (self.ruling.verdict, self.ruling.winner, self.ruling.evidence_digest)
        return self.quorum()

    def outcome(self) -> rules.Outcome:
        """The outcome as far as money is concerned."""
        verdict, winner, _ = self.result()
        agreeing = (
            vote.oracle
            for vote in self.votes.values()
            if (vote.verdict, vote.winner) == (verdict, winner)
        )
        return rules.Outcome(
            opened=self.test_key is not None,
            verdict=verdict,
            winner=winner,
            voters=tuple(agreeing),
            challenger=self.challenger,
            ruled=self.ruling is not None,
            changed=self.ruling is not None and self.ruling.changed,
        )

    def rebuilt_header(self, event: events.RoundClosed) -> Header:
        """The header that ``event`` stands for; its parent is still to be filled in."""
        return Header(
            number=self.number,
            parent=ZERO_WORD,
            task_id=self.task.task_id,
            spec_digest=self.task.spec_digest,
            pool_history=self.selection.pool_history,
            verdict=event.verdict,
            winner=event.winner,
            score=event.score,
            reveal_digest=event.reveal_digest,
            evidence_digest=event.evidence_digest,
            closed_at=event.closed_at,
        )

    def record(self) -> RoundRecord:
        """The frozen record of what is known."""
        verdict, winner, evidence = self.result()
        won = self.reveals.get(winner)
        score = won.claim if won else 0
        if self.closed is not None:
            verdict, winner, score = self.closed.verdict, self.closed.winner, self.closed.score
            evidence = self.closed.evidence_digest
        return RoundRecord(
            number=self.number,
            task=self.task,
            selection=self.selection,
            t0=self.deadlines.t0,
            deadlines=self.deadlines,
            data_key=self.data_key,
            test_key=self.test_key,
            commitments=dict(self.commitments),
            reveals=tuple(sorted(self.reveals.values(), key=self._rank)),
            votes=tuple(self.votes.values()),
            challenger=self.challenger,
            ruling=self.ruling,
            verdict=verdict,
            winner=winner,
            score=score,
            evidence_digest=evidence,
            header=self.header,
            header_hash=self.closed.header if self.closed else None,
            reclaimed=dict(self.reclaimed),
            block_number=self.block_number,
        )

    def _rank(self, reveal: RevealRecord) -> tuple[int, int, int]:
        return rank_key(reveal.claim, reveal.committed_at, reveal.miner, first=self.task.first)

    def _require_open(self, what: str) -> None:
        if self.test_key is None:
            self.report(Rule.WINDOW, f"{what} before the test set was open")

    def _reached(self, opens: int, closes: int, what: str) -> None:
        """An event of the window [opens, closes): refuse it if the logs prove a later time."""
        if self.clock.time >= closes:
            self.report(Rule.WINDOW, f"{what} after its window")
        self.clock.reach(opens)
