"""Identifiers and records of the chain, as Solidity's ``IPoUW`` names them.

Addresses are EIP-55 strings, 32-byte words are ``bytes``, scores are parts per million
(1,000,000 = Dice 1.0), times are seconds since the epoch, amounts are in the asset's smallest
unit (wei for ETH).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NewType

TaskId = NewType("TaskId", int)
RoundNumber = NewType("RoundNumber", int)
Address = NewType("Address", str)

SCORE_ONE_PPM = 1_000_000
ZERO_ADDRESS = Address("0x0000000000000000000000000000000000000000")
ZERO_WORD = bytes(32)


class Verdict(enum.IntEnum):
    """The outcome of a round; ``NONE``: no reveal, no quorum, or a test set never opened."""

    NONE = 0
    WINNER = 1
    NO_TRUE_CLAIM = 2
    INVALID = 3


class EntryState(enum.IntEnum):
    """How far one miner got in one round."""

    NONE = 0
    COMMITTED = 1
    REVEALED = 2
    RECLAIMED = 3


class PoolChange(enum.IntEnum):
    """Kinds of change that ``poolHistory`` rolls over."""

    PUBLISH = 1
    TOP_UP = 2
    CANCEL = 3
    SELECT = 4


class Phase(enum.StrEnum):
    """Where the arena stands; derived from timestamps, never stored on chain.

    ``SELECTED`` and ``KEY`` describe the selected task while no round is live.
    """

    IDLE = "idle"
    SELECTED = "selected"
    KEY = "key window"
    PHASE1 = "phase 1"
    OPEN = "open window"
    REVEAL = "reveal window"
    REPORT = "report window"
    CHALLENGE = "challenge window"
    RULING = "ruling window"
    DECIDED = "decided"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Immutables of one deployment (``IPoUW.Parameters``); windows in seconds."""

    asset: Address
    phase1: int
    key_window: int
    reveal_window: int
    report_window: int
    challenge_window: int
    ruling_window: int
    min_reward: int
    publisher_bond_bps: int
    oracle_fee_bps: int
    miner_bond: int
    challenge_bond: int
    oracles: tuple[Address, ...]
    threshold: int
    arbiter: Address

    @property
    def phase2(self) -> int:
        """Length of Phase 2 in seconds: the sum of its five windows."""
        return (
            self.key_window
            + self.reveal_window
            + self.report_window
            + self.challenge_window
            + self.ruling_window
        )

    def bond_of(self, reward: int) -> int:
        """The publisher's bond for ``reward``, rounded down as the contract does."""
        return reward * self.publisher_bond_bps // 10_000

    def fee_of(self, reward: int) -> int:
        """The committee's fee out of ``reward``, rounded down as the contract does."""
        return reward * self.oracle_fee_bps // 10_000


@dataclass(frozen=True, slots=True)
class ArenaState:
    """``IPoUW.Arena``: at most one selected task (0: none) and one live round."""

    tasks: int
    rounds: int
    selected: TaskId
    selected_at: int
    live: bool

    @property
    def live_round(self) -> RoundNumber | None:
        """The number of the round that is not closed, if there is one."""
        return RoundNumber(self.rounds) if self.live else None


@dataclass(frozen=True, slots=True)
class Task:
    """``IPoUW.Task`` with its id; ``above`` and ``below``: neighbours in the pool (0: its end)."""

    task_id: TaskId
    publisher: Address
    min_score: int
    round: RoundNumber
    pooled: bool
    first: bool
    reward: int
    above: TaskId
    below: TaskId
    spec_digest: bytes
    key_hash: bytes


@dataclass(frozen=True, slots=True)
class Round:
    """``IPoUW.Round`` with its number; ``header`` is 32 zero bytes until the round is closed."""

    number: RoundNumber
    task_id: TaskId
    t0: int
    reveals: int
    opened: bool
    challenged: bool
    ruled: bool
    changed: bool
    verdict: Verdict
    voted: int
    voters: int
    winner: Address
    challenger: Address
    pool_history: bytes
    evidence_digest: bytes
    header: bytes

    @property
    def closed(self) -> bool:
        """Whether the round's header is written and its money credited."""
        return self.header != ZERO_WORD


@dataclass(frozen=True, slots=True)
class Entry:
    """``IPoUW.Entry``: ``digest`` is the 22-byte commitment, after the reveal the revealDigest."""

    committed_at: int
    claim: int
    state: EntryState
    digest: bytes


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Boundaries of one round in seconds since the epoch; windows include their start only."""

    t0: int
    t1: int
    t2: int
    t3: int
    t4: int
    t5: int
    t6: int

    @classmethod
    def of(cls, t0: int, parameters: Parameters) -> Deadlines:
        """The boundaries of a round whose data key was released at ``t0``."""
        t1 = t0 + parameters.phase1
        t2 = t1 + parameters.key_window
        t3 = t2 + parameters.reveal_window
        t4 = t3 + parameters.report_window
        t5 = t4 + parameters.challenge_window
        return cls(t0, t1, t2, t3, t4, t5, t5 + parameters.ruling_window)


@dataclass(frozen=True, slots=True)
class Header:
    """The record whose hash a round writes when it closes (paper, section 4 and Fig. 3)."""

    number: RoundNumber
    parent: bytes
    task_id: TaskId
    spec_digest: bytes
    pool_history: bytes
    verdict: Verdict
    winner: Address
    score: int
    reveal_digest: bytes
    evidence_digest: bytes
    closed_at: int


def rank_key(claim: int, committed_at: int, miner: Address, *, first: bool) -> tuple[int, int, int]:
    """Sort key of a reveal: the best comes first.

    Higher claim (not compared where ``first``), then earlier last commit, then lower address.
    """
    return (0 if first else -claim, committed_at, int(miner, 16))
