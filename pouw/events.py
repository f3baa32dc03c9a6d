"""The events of ``IPoUW``, one frozen record each, as ``pouw.chain.logs`` reads them.

Fields are those of the Solidity event in snake_case, preceded by where the log was found. Block
timestamps are no part of a log: what a reader of history needs (``t0``, ``committed_at``,
``selected_at``, ``closed_at``) the events carry themselves. Structs of msgspec: a frozen dataclass
takes longer to build than all of its fields to decode.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from pouw.types import Address, RoundNumber, TaskId, Verdict


class Event(msgspec.Struct, frozen=True, gc=False):
    """Where a log was found: block, position within it, and the transaction that wrote it."""

    block_number: int
    block_hash: bytes
    log_index: int
    transaction_hash: bytes

    @property
    def position(self) -> tuple[int, int]:
        """Sort key: the order of the chain."""
        return (self.block_number, self.log_index)


class TaskPublished(Event, frozen=True, gc=False):
    """A task entered the pool."""

    task_id: TaskId
    publisher: Address
    spec_digest: bytes
    key_hash: bytes
    min_score: int
    first: bool
    reward: int
    pool_history: bytes


class TaskToppedUp(Event, frozen=True, gc=False):
    """A pooled task's reward was raised to ``reward``."""

    task_id: TaskId
    reward: int
    pool_history: bytes


class TaskCancelled(Event, frozen=True, gc=False):
    """A pooled task was taken back."""

    task_id: TaskId
    pool_history: bytes


class TaskSelected(Event, frozen=True, gc=False):
    """The head of the pool was selected."""

    task_id: TaskId
    selected_at: int
    pool_history: bytes


class TaskDropped(Event, frozen=True, gc=False):
    """The selected task's data key did not come in time."""

    task_id: TaskId


class DataKeyReleased(Event, frozen=True, gc=False):
    """A round began; its sealed training data can be opened."""

    round: RoundNumber
    task_id: TaskId
    data_key: bytes
    t0: int
    pool_history: bytes


class Committed(Event, frozen=True, gc=False):
    """A miner committed, or overwrote the commitment."""

    round: RoundNumber
    miner: Address
    commitment: bytes
    committed_at: int


class TestOpened(Event, frozen=True, gc=False):
    """The sealed test set can be opened."""

    __test__: ClassVar[bool] = False  # not a test case, whatever pytest makes of the name

    round: RoundNumber
    test_key: bytes


class Revealed(Event, frozen=True, gc=False):
    """A miner opened the commitment."""

    round: RoundNumber
    miner: Address
    claimed_score: int
    manifest_digest: bytes
    salt: bytes
    signature: bytes


class Reported(Event, frozen=True, gc=False):
    """An oracle voted."""

    round: RoundNumber
    oracle: Address
    verdict: Verdict
    winner: Address
    evidence_digest: bytes


class Challenged(Event, frozen=True, gc=False):
    """The outcome, or its absence, was challenged."""

    round: RoundNumber
    challenger: Address


class Ruled(Event, frozen=True, gc=False):
    """The arbiter ruled."""

    round: RoundNumber
    verdict: Verdict
    winner: Address
    evidence_digest: bytes
    changed: bool


class RoundClosed(Event, frozen=True, gc=False):
    """A round closed and wrote its header."""

    round: RoundNumber
    verdict: Verdict
    winner: Address
    score: int
    reveal_digest: bytes
    evidence_digest: bytes
    closed_at: int
    header: bytes


class Reclaimed(Event, frozen=True, gc=False):
    """A revealer's bond went back, or was burned."""

    round: RoundNumber
    miner: Address
    burned: bool


class Credited(Event, frozen=True, gc=False):
    """An account can withdraw ``amount`` more; ``ZERO_ADDRESS``: burned."""

    account: Address
    amount: int


class Withdrawn(Event, frozen=True, gc=False):
    """An account took its credit."""

    account: Address
    to: Address
    amount: int
