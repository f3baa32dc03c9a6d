"""The arena as an executable specification: every call, its requirements and its effects.

A pure state machine after ``docs/protocol.md``, written independently of ``PoUW.sol`` and without
a chain, so that the same random history can be played on both. Methods are named after the
contract's calls, take who calls and when, raise :class:`pouw.errors.Reverted` with the custom
error's name, and log the contract's events.

Every call keeps the same beats: requirements, settling the pool, effects. A call that is refused
changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from pouw import events, hashing
from pouw.errors import Reverted
from pouw.ledger import rules
from pouw.ledger.books import Call
from pouw.ledger.model_tasks import Tasks
from pouw.ledger.pool import NOBODY
from pouw.types import (
    SCORE_ONE_PPM,
    ZERO_ADDRESS,
    ZERO_WORD,
    Address,
    ArenaState,
    Entry,
    EntryState,
    Header,
    Round,
    RoundNumber,
    Verdict,
    rank_key,
)

__all__ = ["Arena", "Call"]


class Arena(Tasks):
    """One deployment: rounds and money on top of the tasks."""

    def release_data_key(self, call: Call, data_key: bytes) -> RoundNumber:
        """Close the round before and begin the selected task's."""
        self.books.begin(call)
        selected, selected_at = self._settled()
        if selected == NOBODY:
            raise Reverted("NothingSelected")
        self._require_time(opens=selected_at + self.parameters.phase2)
        if hashing.keccak(data_key) != self.tasks[selected].key_hash:
            raise Reverted("WrongKey", {"key": "0x" + data_key.hex()})
        self._sync()

        if self.state.live:
            self._close()
        number = RoundNumber(self.state.rounds + 1)
        self.state = ArenaState(self.state.tasks, number, NOBODY, 0, live=True)
        self.tasks[selected] = replace(self.tasks[selected], round=number)
        self.entries[number] = {}
        self.rounds[number] = Round(
            number=number,
            task_id=selected,
            t0=call.time,
            reveals=0,
            opened=False,
            challenged=False,
            ruled=False,
            changed=False,
            verdict=Verdict.NONE,
            voted=0,
            voters=0,
            winner=ZERO_ADDRESS,
            challenger=ZERO_ADDRESS,
            pool_history=self._selected_history,
            evidence_digest=ZERO_WORD,
            header=ZERO_WORD,
        )
        self.books.log(
            events.DataKeyReleased,
            round=number,
            task_id=selected,
            data_key=data_key,
            t0=call.time,
            pool_history=self._selected_history,
        )
        return number

    def commit(self, call: Call, number: RoundNumber, commitment: bytes) -> None:
        """Commit to a model in Phase 1; the last commitment counts."""
        self.books.begin(call)
        if number not in self.rounds:
            raise Reverted("NotLive", {"round": number})
        self._require_time(closed=self.deadlines(number).t1)

        entry = Entry(call.time, 0, EntryState.COMMITTED, commitment[:22])
        self.entries[number][call.sender] = entry
        self.books.log(
            events.Committed,
            round=number,
            miner=call.sender,
            commitment=commitment,
            committed_at=call.time,
        )

    def open_test(self, call: Call, test_key: bytes) -> None:
        """Open the live round's test set."""
        self.books.begin(call)
        number = self._live_round()
        this = self.rounds[number]
        if this.opened:
            raise Reverted("TestAlreadyOpen", {"round": number})
        deadlines = self.deadlines(number)
        self._require_time(opens=deadlines.t1, closed=deadlines.t2)
        if hashing.key_hash_of(test_key) != self.tasks[this.task_id].key_hash:
            raise Reverted("WrongKey", {"key": "0x" + test_key.hex()})
        self._sync()

        self.rounds[number] = replace(this, opened=True)
        self.books.log(events.TestOpened, round=number, test_key=test_key)

    def reveal(
        self,
        call: Call,
        number: RoundNumber,
        manifest_digest: bytes,
        claimed_score: int,
        salt: bytes,
        signature: bytes,
    ) -> None:
        """Open the caller's commitment: claim a score, name the manifest, leave a bond."""
        self.books.begin(call)
        this = self._opened_round(number)
        self._require_time(closed=self.deadlines(number).t3)
        miner, entry = call.sender, self.entry(number, call.sender)
        if entry.state is not EntryState.COMMITTED:
            raise Reverted("NothingCommitted", {"round": number, "miner": miner})
        computed = hashing.commitment(
            self.chain_id, self.address, number, miner, manifest_digest, salt
        )
        if entry.digest != computed[:22]:
            raise Reverted("CommitmentMismatch", {"computed": "0x" + computed.hex()})
        min_score = self.tasks[this.task_id].min_score
        if claimed_score < min_score:
            raise Reverted("ClaimTooLow", {"claimedScore": claimed_score, "minScore": min_score})
        if claimed_score > SCORE_ONE_PPM:
            raise Reverted("InvalidScore", {"score": claimed_score})
        signed = hashing.reveal_hash(self.domain, number, miner, manifest_digest, claimed_score)
        if hashing.recover_signer(signed, signature) != miner:
            raise Reverted("InvalidSignature", {"miner": miner})
        self.books.take(call, self.parameters.miner_bond)

        digest = hashing.reveal_digest(manifest_digest, signature)
        self.entries[number][miner] = Entry(
            entry.committed_at, claimed_score, EntryState.REVEALED, digest
        )
        self.rounds[number] = replace(this, reveals=this.reveals + 1)
        self.books.log(
            events.Revealed,
            round=number,
            miner=miner,
            claimed_score=claimed_score,
            manifest_digest=manifest_digest,
            salt=salt,
            signature=signature,
        )

    def report(
        self,
        call: Call,
        number: RoundNumber,
        verdict: Verdict,
        winner: Address,
        evidence_digest: bytes,
    ) -> None:
        """Vote once; ``threshold`` equal votes are the outcome, later equal ones join it."""
        self.books.begin(call)
        if call.sender not in self.parameters.oracles:
            raise Reverted("NotOracle", {"caller": call.sender})
        this = self._opened_round(number)
        deadlines = self.deadlines(number)
        self._require_time(opens=deadlines.t3, closed=deadlines.t4)
        seat = 1 << self.parameters.oracles.index(call.sender)
        if this.voted & seat:
            raise Reverted("AlreadyVoted", {"round": number, "oracle": call.sender})
        self._require_fit(number, verdict, winner)

        voters = self.votes[number, verdict, winner] | seat
        self.votes[number, verdict, winner] = voters
        this = replace(this, voted=this.voted | seat)
        if this.verdict is Verdict.NONE and voters.bit_count() >= self.parameters.threshold:
            this = replace(this, verdict=verdict, winner=winner, evidence_digest=evidence_digest)
        if (this.verdict, this.winner) == (verdict, winner):
            this = replace(this, voters=voters)
        self.rounds[number] = this
        self.books.log(
            events.Reported,
            round=number,
            oracle=call.sender,
            verdict=verdict,
            winner=winner,
            evidence_digest=evidence_digest,
        )

    def challenge(self, call: Call, number: RoundNumber) -> None:
        """Challenge the outcome, or its absence, once."""
        self.books.begin(call)
        this = self.rounds.get(number)
        if self.parameters.arbiter == ZERO_ADDRESS or (this is not None and this.challenged):
            raise Reverted("NotChallengeable", {"round": number})
        this = self._opened_round(number)
        deadlines = self.deadlines(number)
        self._require_time(opens=deadlines.t4, closed=deadlines.t5)
        self.books.take(call, self.parameters.challenge_bond)

        self.rounds[number] = replace(this, challenged=True, challenger=call.sender)
        self.books.log(events.Challenged, round=number, challenger=call.sender)

    def rule(
        self,
        call: Call,
        number: RoundNumber,
        verdict: Verdict,
        winner: Address,
        evidence_digest: bytes,
    ) -> None:
        """The arbiter's ruling on a challenge is the outcome, evidence included."""
        self.books.begin(call)
        if call.sender != self.parameters.arbiter:
            raise Reverted("NotArbiter", {"caller": call.sender})
        this = self.rounds.get(number)
        if this is None or not this.challenged or this.ruled:
            raise Reverted("NotRulable", {"round": number})
        self._require_time(closed=self.deadlines(number).t6)
        self._require_fit(number, verdict, winner)

        changed = (this.verdict, this.winner) != (verdict, winner)
        self.rounds[number] = replace(
            this,
            ruled=True,
            changed=changed,
            verdict=verdict,
            winner=winner,
            evidence_digest=evidence_digest,
        )
        self.books.log(
            events.Ruled,
            round=number,
            verdict=verdict,
            winner=winner,
            evidence_digest=evidence_digest,
            changed=changed,
        )

    def finalize(self, call: Call) -> None:
        """Close the live round once it is decided."""
        self.books.begin(call)
        number = self._live_round()
        if not self._decided(number):
            raise Reverted("NotDecided", {"round": number})
        self._sync()
        self._close()

    def reclaim(self, call: Call, number: RoundNumber, miner: Address) -> None:
        """Credit a revealer's bond once the round is closed: back, or burned."""
        self.books.begin(call)
        this = self.rounds.get(number)
        if this is None or not this.closed:
            raise Reverted("NotClosed", {"round": number})
        entry = self.entry(number, miner)
        if entry.state is not EntryState.REVEALED:
            raise Reverted("NothingToReclaim", {"round": number, "miner": miner})

        winner_rank = self._rank(number, this.winner) if this.verdict is Verdict.WINNER else None
        burned = rules.bond_burned(this.verdict, self._rank(number, miner), winner_rank)
        self.entries[number][miner] = replace(entry, state=EntryState.RECLAIMED)
        self.books.log(events.Reclaimed, round=number, miner=miner, burned=burned)
        self.books.credit({ZERO_ADDRESS if burned else miner: self.parameters.miner_bond})

    def withdraw(self, call: Call, to: Address) -> int:
        """Take the caller's whole credit; returns it."""
        self.books.begin(call)
        if to == ZERO_ADDRESS:
            raise Reverted("InvalidReceiver")
        if not self.books.credits[call.sender]:
            raise Reverted("NothingToWithdraw", {"account": call.sender})
        amount = self.books.pay_out(call.sender)
        self.books.log(events.Withdrawn, account=call.sender, to=to, amount=amount)
        return amount

    def _close(self) -> None:
        """Write the live round's header and credit everybody after the outcome table."""
        number = self._live_round()
        this, task = self.rounds[number], self.tasks[self.rounds[number].task_id]
        won = self.entry(number, this.winner)
        header = Header(
            number=number,
            parent=self.last_header,
            task_id=task.task_id,
            spec_digest=task.spec_digest,
            pool_history=this.pool_history,
            verdict=this.verdict,
            winner=this.winner,
            score=won.claim,
            reveal_digest=won.digest,
            evidence_digest=this.evidence_digest,
            closed_at=self.books.time,
        )
        self.last_header = hashing.header_hash(header)
        self.rounds[number] = replace(this, header=self.last_header)
        self.state = replace(self.state, live=False)
        self.books.log(
            events.RoundClosed,
            round=number,
            verdict=header.verdict,
            winner=header.winner,
            score=header.score,
            reveal_digest=header.reveal_digest,
            evidence_digest=header.evidence_digest,
            closed_at=header.closed_at,
            header=self.last_header,
        )
        outcome = rules.Outcome(
            opened=this.opened,
            verdict=this.verdict,
            winner=this.winner,
            voters=tuple(
                oracle
                for seat, oracle in enumerate(self.parameters.oracles)
                if this.voters >> seat & 1
            ),
            challenger=this.challenger if this.challenged else None,
            ruled=this.ruled,
            changed=this.changed,
        )
        self.books.credit(rules.payouts(self.parameters, task.publisher, task.reward, outcome))

    def _opened_round(self, number: RoundNumber) -> Round:
        this = self.rounds.get(number)
        if this is None or not this.opened:
            raise Reverted("TestNotOpen", {"round": number})
        return this

    def _require_fit(self, number: RoundNumber, verdict: Verdict, winner: Address) -> None:
        revealers = frozenset(
            miner
            for miner, entry in self.entries[number].items()
            if entry.state is EntryState.REVEALED
        )
        if not rules.verdict_fits(verdict, winner, revealers):
            raise Reverted("InvalidVerdict", {"verdict": verdict, "winner": winner})

    def _decided(self, number: RoundNumber) -> bool:
        this = self.rounds[number]
        return rules.decided(
            self.deadlines(number),
            self.books.time,
            opened=this.opened,
            challenged=this.challenged,
            ruled=this.ruled,
        )

    def _rank(self, number: RoundNumber, miner: Address) -> tuple[int, int, int]:
        entry = self.entries[number][miner]
        first = self.tasks[self.rounds[number].task_id].first
        return rank_key(entry.claim, entry.committed_at, miner, first=first)
