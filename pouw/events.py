"""The events of ``IPoUW``, one frozen record each, as ``pouw.chain.logs`` reads them.

Fields are those of the Solidity event in snake_case, preceded by where the log was found. Block
timestamps are no part of a log: what a reader of history needs (``t0``, ``committed_at``,
``selected_at``, ``closed_at``) the events carry themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from pouw.types import Address, RoundNumber, TaskId, Verdict


@dataclass(frozen=True, slots=True)
class Event:
    """Where a log was found: block, position within it, and the transaction that wrote it."""

    block_number: int
    block_hash: bytes
    log_index: int
    transaction_hash: bytes

    @property
    def position(self) -> tuple[int, int]:
        """Sort key: the order of the chain."""
        return (self.block_number, self.log_index)


@dataclass(frozen=True, slots=True)
class TaskPublished(Event):
    """A task entered the pool."""

    task_id: TaskId
    publisher: Address
    spec_digest: bytes
    key_hash: bytes
    min_score: int
    first: bool
    reward: int
    pool_history: bytes


@dataclass(frozen=True, slots=True)
class TaskToppedUp(Event):
    """A pooled task's reward was raised to ``reward``."""

    task_id: TaskId
    reward: int
    pool_history: bytes


@dataclass(frozen=True, slots=True)
class TaskCancelled(Event):
    """A pooled task was taken back."""

    task_id: TaskId
    pool_history: bytes


@dataclass(frozen=True, slots=True)
class TaskSelected(Event):
    """The head of the pool was selected."""

    task_id: TaskId
    selected_at: int
    pool_history: bytes


@dataclass(frozen=True, slots=True)
class TaskDropped(Event):
    """The selected task's data key did not come in time."""

    task_id: TaskId


@dataclass(frozen=True, slots=True)
class DataKeyReleased(Event):
    """A round began; its sealed training data can be opened."""

    round: RoundNumber
    task_id: TaskId
    data_key: bytes
    t0: int
    pool_history: bytes


@dataclass(frozen=True, slots=True)
class Committed(Event):
    """A miner committed, or overwrote the commitment."""

    round: RoundNumber
    miner: Address
    commitment: bytes
    committed_at: int


@dataclass(frozen=True, slots=True)
class TestOpened(Event):
    """The sealed test set can be opened."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    round: RoundNumber
    test_key: bytes


@dataclass(frozen=True, slots=True)
class Revealed(Event):
    """A miner opened the commitment."""

    round: RoundNumber
    miner: Address
    claimed_score: int
    manifest_digest: bytes
    salt: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Reported(Event):
    """An oracle voted."""

    round: RoundNumber
    oracle: Address
    verdict: Verdict
    winner: Address
    evidence_digest: bytes


@dataclass(frozen=True, slots=True)
class Challenged(Event):
    """The outcome, or its absence, was challenged."""

    round: RoundNumber
    challenger: Address


@dataclass(frozen=True, slots=True)
class Ruled(Event):
    """The arbiter ruled."""

    round: RoundNumber
    verdict: Verdict
    winner: Address
    evidence_digest: bytes
    changed: bool


@dataclass(frozen=True, slots=True)
class RoundClosed(Event):
    """A round closed and wrote its header."""

    round: RoundNumber
    verdict: Verdict
    winner: Address
    score: int
    reveal_digest: bytes
    evidence_digest: bytes
    closed_at: int
    header: bytes


@dataclass(frozen=True, slots=True)
class Reclaimed(Event):
    """A revealer's bond went back, or was burned."""

    round: RoundNumber
    miner: Address
    burned: bool


@dataclass(frozen=True, slots=True)
class Credited(Event):
    """An account can withdraw ``amount`` more; ``ZERO_ADDRESS``: burned."""

    account: Address
    amount: int


@dataclass(frozen=True, slots=True)
class Withdrawn(Event):
    """An account took its credit."""

    account: Address
    to: Address
    amount: int
