"""A stage for the tests of the ledger: an arena of the model, its actors, and a clock."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from eth_keys import keys
from msgspec.structs import replace

from pouw import hashing
from pouw.events import Event
from pouw.ledger.history import History
from pouw.ledger.model import Arena, Call
from pouw.ledger.replay import replay
from pouw.types import (
    ZERO_ADDRESS,
    Address,
    Deadlines,
    Parameters,
    RoundNumber,
    TaskId,
    Verdict,
)

CHAIN_ID = 31337
ARENA = Address("0x" + "Aa" * 20)
START = 1_700_000_000
REWARD = 1_000_003


@dataclass(frozen=True)
class Actor:
    """An account that can sign."""

    key: keys.PrivateKey

    @cached_property
    def address(self) -> Address:
        return Address(self.key.public_key.to_checksum_address())


def actor(number: int) -> Actor:
    return Actor(keys.PrivateKey(number.to_bytes(32, "big")))


PUBLISHER, ALICE, BOB, CAROL, DAVE, ARBITER, STRANGER = (actor(n) for n in range(1, 8))
ORACLES = tuple(actor(n) for n in range(11, 14))

PARAMETERS = Parameters(
    asset=ZERO_ADDRESS,
    phase1=100,
    key_window=10,
    reveal_window=20,
    report_window=30,
    challenge_window=15,
    ruling_window=25,
    min_reward=1_000,
    publisher_bond_bps=2_000,
    oracle_fee_bps=500,
    miner_bond=77,
    challenge_bond=1_111,
    oracles=tuple(each.address for each in ORACLES),
    threshold=2,
    arbiter=ARBITER.address,
)
FEE = PARAMETERS.fee_of(REWARD)
BOND = PARAMETERS.bond_of(REWARD)


def opening_key(task_id: int) -> bytes:
    return hashing.keccak(b"test key" + task_id.to_bytes(4))


def manifest_of(miner: Actor) -> bytes:
    return hashing.sha256(b"manifest" + miner.address.encode())


def salt_of(miner: Actor) -> bytes:
    return hashing.keccak(b"salt" + miner.address.encode())


class Stage:
    """Plays calls on the model at ``now``."""

    def __init__(self, parameters: Parameters = PARAMETERS, arena: Arena | None = None) -> None:
        self.arena = arena or Arena(parameters, CHAIN_ID, ARENA)
        self.parameters = parameters
        self.now = START

    @property
    def events(self) -> list[Event]:
        return self.arena.books.events

    @property
    def number(self) -> RoundNumber:
        return RoundNumber(self.arena.state.rounds)

    @property
    def deadlines(self) -> Deadlines:
        return self.arena.deadlines(self.number)

    def call(self, who: Actor, payment: int | None = None) -> Call:
        return Call(who.address, self.now, payment)

    def credit(self, who: Actor | None) -> int:
        """What an actor can withdraw; None: what was burned."""
        return self.arena.books.credits[who.address if who else ZERO_ADDRESS]

    def replay(self) -> History:
        return replay(self.events, self.parameters, CHAIN_ID, self.arena.address)

    def publish(
        self, reward: int = REWARD, *, first: bool = False, min_score: int = 500_000
    ) -> TaskId:
        task_id = self.arena.state.tasks + 1
        return self.arena.publish(
            self.call(PUBLISHER),
            hashing.sha256(b"spec" + task_id.to_bytes(4)),
            hashing.key_hash_of(opening_key(task_id)),
            min_score,
            first,
            reward,
        )

    def release(self) -> RoundNumber:
        """The selected task's data key, as soon as its window opens."""
        state = self.arena.state
        self.now = max(self.now, state.selected_at + self.parameters.phase2)
        key = hashing.data_key_of(opening_key(state.selected))
        return self.arena.release_data_key(self.call(PUBLISHER), key)

    def commit(self, miner: Actor) -> None:
        commitment = hashing.commitment(
            CHAIN_ID,
            self.arena.address,
            self.number,
            miner.address,
            manifest_of(miner),
            salt_of(miner),
        )
        self.arena.commit(self.call(miner), self.number, commitment)

    def open(self) -> None:
        self.now = max(self.now, self.deadlines.t1)
        task_id = self.arena.rounds[self.number].task_id
        self.arena.open_test(self.call(PUBLISHER), opening_key(task_id))

    def signature(self, miner: Actor, claim: int) -> bytes:
        digest = hashing.reveal_hash(
            self.arena.domain, self.number, miner.address, manifest_of(miner), claim
        )
        signed = miner.key.sign_msg_hash(digest).to_bytes()
        return signed[:64] + bytes([signed[64] + 27])

    def reveal(self, miner: Actor, claim: int) -> None:
        self.arena.reveal(
            self.call(miner),
            self.number,
            manifest_of(miner),
            claim,
            salt_of(miner),
            self.signature(miner, claim),
        )

    def vote(self, oracle: Actor, verdict: Verdict, winner: Actor | None = None) -> None:
        self.now = max(self.now, self.deadlines.t3)
        who = winner.address if winner else ZERO_ADDRESS
        evidence = hashing.sha256(b"evidence" + oracle.address.encode())
        self.arena.report(self.call(oracle), self.number, verdict, who, evidence)

    def challenge(self, who: Actor) -> None:
        self.now = max(self.now, self.deadlines.t4)
        self.arena.challenge(self.call(who), self.number)

    def rule(self, verdict: Verdict, winner: Actor | None = None) -> None:
        who = winner.address if winner else ZERO_ADDRESS
        evidence = hashing.sha256(b"ruling")
        self.arena.rule(self.call(ARBITER), self.number, verdict, who, evidence)

    def finalize(self) -> None:
        """At the first moment at which the round is decided, whatever happened in it."""
        this = self.arena.rounds[self.number]
        limits = self.deadlines
        decided = limits.t5
        if not this.opened:
            decided = limits.t2
        elif this.ruled:
            decided = self.now
        elif this.challenged:
            decided = limits.t6
        self.now = max(self.now, decided)
        self.arena.finalize(self.call(STRANGER))

    def reclaim(self, miner: Actor) -> None:
        self.arena.reclaim(self.call(STRANGER), self.number, miner.address)

    def train(self, claims: dict[Actor, int]) -> None:
        """Release, commit one second apart, open, reveal."""
        self.release()
        for miner in claims:
            self.now += 1
            self.commit(miner)
        self.open()
        for miner, claim in claims.items():
            self.now += 1
            self.reveal(miner, claim)

    def run_round(self, claims: dict[Actor, int], winner: Actor) -> None:
        """A whole round in which two of three oracles vote for ``winner``."""
        self.train(claims)
        for oracle in ORACLES[:2]:
            self.vote(oracle, Verdict.WINNER, winner)
        self.finalize()
        for miner in claims:
            self.reclaim(miner)


def renumbered(events: list[Event]) -> list[Event]:
    """The events with log indices that rise again, after one was added, moved or taken out."""
    return [replace(event, log_index=place) for place, event in enumerate(events)]
