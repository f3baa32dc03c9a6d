"""What a replay of an arena's logs yields: records, and findings where a rule was broken."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from pouw.types import (
    Address,
    Deadlines,
    Header,
    Parameters,
    PoolChange,
    RoundNumber,
    TaskId,
    Verdict,
    rank_key,
)


class Rule(enum.StrEnum):
    """The rules that a replay checks; a finding names one."""

    POOL = "pool"  # tasks enter, rise and leave only as the pool allows
    POOL_HISTORY = "pool-history"  # the rolling hash over the pool's changes
    SELECTION = "selection"  # the head of the pool, when nothing hinders
    ROUNDS = "rounds"  # numbers rise by one, events belong to a live round
    KEYS = "keys"  # keccak256 links both keys to the published hash
    WINDOW = "window"  # what happened outside its window
    COMMIT_TIME = "commit-time"  # commitments in Phase 1 only
    COMMITMENT = "commitment"  # a reveal opens the miner's last commitment
    SIGNATURE = "signature"  # a reveal is signed by its miner
    CLAIM = "claim"  # at least the task's minimum, at most one
    VOTE = "vote"  # oracles only, once each, fitting what was revealed
    CHALLENGE = "challenge"
    RULING = "ruling"
    OUTCOME = "outcome"  # verdict and winner are those of the votes or of the ruling
    SCORE = "score"  # the winner's claim
    REVEAL_DIGEST = "reveal-digest"
    EVIDENCE = "evidence"
    CLOSING = "closing"  # once decided, before the next round
    HEADER = "header"  # hash and parent
    PAYOUT = "payout"  # credits are those of the outcome table
    RECLAIM = "reclaim"  # bonds burned above the winner, else back
    WITHDRAWAL = "withdrawal"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that the logs break.

    ``round``: the round concerned; for the pool, the one that the pool's next selection begins.
    """

    round: RoundNumber | None
    task_id: TaskId | None
    rule: Rule
    detail: str

    def __str__(self) -> str:
        where = f"round {self.round}" if self.round is not None else "no round"
        task = f", task {self.task_id}" if self.task_id is not None else ""
        return f"{where}{task}: {self.rule}: {self.detail}"


class TaskState(enum.StrEnum):
    """Where a task stands; ``RUN``: its round began."""

    POOLED = "pooled"
    SELECTED = "selected"
    RUN = "run"
    CANCELLED = "cancelled"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A published task; ``round`` None until its data key is released."""

    task_id: TaskId
    publisher: Address
    spec_digest: bytes
    key_hash: bytes
    min_score: int
    first: bool
    reward: int
    state: TaskState
    round: RoundNumber | None
    block_number: int


@dataclass(frozen=True, slots=True)
class PoolStep:
    """One change of the pool; ``reward_after`` in the asset's smallest unit, 0 for a cancel."""

    kind: PoolChange
    task_id: TaskId
    reward_after: int


@dataclass(frozen=True, slots=True)
class Selection:
    """One selection; ``pool`` (ids in order) and ``pool_history`` as of just before it."""

    task_id: TaskId
    selected_at: int
    pool: tuple[TaskId, ...]
    pool_history: bytes

    @property
    def unfinished(self) -> tuple[TaskId, ...]:
        """The tasks that the selection left behind, in the pool's order."""
        return tuple(task_id for task_id in self.pool if task_id != self.task_id)


@dataclass(frozen=True, slots=True)
class CommitmentRecord:
    """A miner's last commitment in a round."""

    miner: Address
    commitment: bytes
    committed_at: int
    block_number: int


@dataclass(frozen=True, slots=True)
class RevealRecord:
    """A reveal; ``committed_at`` is that of the commitment it opens."""

    miner: Address
    claim: int
    committed_at: int
    manifest_digest: bytes
    salt: bytes
    signature: bytes
    digest: bytes
    block_number: int


@dataclass(frozen=True, slots=True)
class VoteRecord:
    """An oracle's vote."""

    oracle: Address
    verdict: Verdict
    winner: Address
    evidence_digest: bytes
    block_number: int


@dataclass(frozen=True, slots=True)
class RulingRecord:
    """The arbiter's ruling; ``changed``: it differs from the committee's outcome."""

    verdict: Verdict
    winner: Address
    evidence_digest: bytes
    changed: bool


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A round as its logs tell it.

    ``verdict``, ``winner`` and ``score`` are those it closed with, before that those of the votes
    and the ruling so far. ``reveals`` are in rank order, best first. ``header`` is rebuilt from
    the logs, ``header_hash`` is what the contract logged; both None until the round is closed.
    ``reclaimed``: revealers whose bond was settled, True where it was burned.
    """

    number: RoundNumber
    task: TaskRecord
    selection: Selection
    t0: int
    deadlines: Deadlines
    data_key: bytes
    test_key: bytes | None
    commitments: Mapping[Address, CommitmentRecord]
    reveals: tuple[RevealRecord, ...]
    votes: tuple[VoteRecord, ...]
    challenger: Address | None
    ruling: RulingRecord | None
    verdict: Verdict
    winner: Address
    score: int
    evidence_digest: bytes
    header: Header | None
    header_hash: bytes | None
    reclaimed: Mapping[Address, bool]
    block_number: int

    @property
    def closed(self) -> bool:
        """Whether its header is written and its money credited."""
        return self.header is not None

    @property
    def unfinished(self) -> tuple[TaskId, ...]:
        """Tasks that the selection of this round's task left in the pool, in its order."""
        return self.selection.unfinished

    def reveal_of(self, miner: Address) -> RevealRecord | None:
        """The miner's reveal, if there is one."""
        return next((each for each in self.reveals if each.miner == miner), None)

    def rank_of(self, reveal: RevealRecord) -> tuple[int, int, int]:
        """Sort key of a reveal in this round: the best comes first."""
        return rank_key(reveal.claim, reveal.committed_at, reveal.miner, first=self.task.first)


@dataclass(frozen=True, slots=True)
class History:
    """An arena's past and present, from its logs alone.

    ``steps``: the pool's changes; ``pool``: ids in order; ``credits``: what each account can
    withdraw (``ZERO_ADDRESS``: burned); ``findings``: broken rules in the order of the chain,
    none in an honest history; ``block_number``: of the last event, 0 before the first.
    """

    parameters: Parameters
    chain_id: int
    arena: Address
    tasks: Mapping[TaskId, TaskRecord]
    rounds: Mapping[RoundNumber, RoundRecord]
    selections: tuple[Selection, ...]
    steps: tuple[PoolStep, ...]
    pool: tuple[TaskId, ...]
    selected: Selection | None
    live: RoundNumber | None
    pool_history: bytes
    last_header: bytes
    credits: Mapping[Address, int]
    findings: tuple[Finding, ...]
    block_number: int

    @property
    def headers(self) -> tuple[Header, ...]:
        """The headers of all closed rounds, oldest first."""
        return tuple(each.header for each in self.rounds.values() if each.header is not None)

    def findings_of(self, number: RoundNumber) -> tuple[Finding, ...]:
        """What is wrong with one round."""
        return tuple(finding for finding in self.findings if finding.round == number)
