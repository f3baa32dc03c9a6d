"""A load on the ledger: very many tasks and miners through pool, rounds and reorganisations.

The pool is the node's own (`pouw.ledger.pool`), its history the contract's rolling hash;
commitments and headers are the real hashes, and who wins a round has the best claim by the
protocol's rank. Every block brings new tasks, raises some, cancels some and closes one round. A
reorganisation takes the last blocks back change by change and plays others in their place. In the
end every header is checked again, and the pool against a sorted list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pouw import hashing
from pouw.errors import LedgerError
from pouw.ledger.header import verify_chain
from pouw.ledger.pool import Pool
from pouw.types import (
    SCORE_ONE_PPM,
    ZERO_WORD,
    Address,
    Header,
    PoolChange,
    RoundNumber,
    TaskId,
    Verdict,
    rank_key,
)

_ARENA = Address("0x" + "a2" * 20)
_CHAIN_ID = 1
_DEEPEST_REORG = 8
_REORG_EVERY = 50
_PUBLISHERS = 997
_BLOCK_SECONDS = 3_600

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Load:
    """What is played: ``tasks``, so many in a block; so many of all miners take part in a round."""

    tasks: int = 1_000_000
    miners: int = 10_000
    tasks_a_block: int = 1_000
    miners_a_round: int = 100


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it.

    ``changes``: of the pool, those taken back and played again included; ``pooled``: tasks left
    unfinished.
    """

    changes: int
    rounds: int
    reveals: int
    reorganised_blocks: int
    pooled: int
    pool_history: bytes
    last_header: bytes


@dataclass(frozen=True, slots=True)
class _Change:
    """One change of the pool; ``reward``: the whole one after it, ``before``: that before it."""

    kind: PoolChange
    task_id: TaskId
    reward: int
    before: int


@dataclass(slots=True)
class _Block:
    """What one block did, and what held before."""

    published: int
    history: bytes
    rounds: int
    changes: list[_Change] = field(default_factory=list)


class LoadPlay:
    """One play of a load; `run` it once."""

    def __init__(self, load: Load, random: np.random.Generator) -> None:
        self._load, self._random = load, random
        self._pool = Pool()
        self._rewards = [0] * (load.tasks + 1)
        self._history = ZERO_WORD
        self._blocks: list[_Block] = []
        self._headers: list[tuple[Header, bytes]] = []
        self._published = self._changes = self._reveals = self._reorganised = 0
        self._miners = [_address(number) for number in range(load.miners)]
        self._publishers = [_address(load.miners + number) for number in range(_PUBLISHERS)]

    def run(self, progress: Progress | None = None) -> Played:
        """Play everything; LedgerError where the ledger contradicts itself in the end."""
        blocks = 0
        while self._published < self._load.tasks:
            self._play_block()
            blocks += 1
            if blocks % _REORG_EVERY == 0:
                self._reorganise(int(self._random.integers(1, _DEEPEST_REORG + 1)))
            if progress is not None:
                progress(self._published, self._load.tasks)
        self._check()
        return Played(
            changes=self._changes,
            rounds=len(self._headers),
            reveals=self._reveals,
            reorganised_blocks=self._reorganised,
            pooled=len(self._pool),
            pool_history=self._history,
            last_header=self._headers[-1][1] if self._headers else ZERO_WORD,
        )

    def _play_block(self) -> None:
        """New tasks, a top-up for one in ten, a cancel for one in fifty, and a round."""
        count = min(self._load.tasks_a_block, self._load.tasks - self._published)
        block = _Block(self._published, self._history, len(self._headers))
        self._blocks = [*self._blocks[1 - _DEEPEST_REORG :], block]
        rewards = (1 + self._random.pareto(1.5, count)) * 10**9
        first = self._published + 1
        for task_id, reward in enumerate(rewards.astype(np.int64).tolist(), first):
            self._change(block, PoolChange.PUBLISH, TaskId(task_id), reward)
        self._published += count
        for task_id in self._random.permutation(np.arange(first, first + count, 10)).tolist():
            raised = self._rewards[task_id] * 11 // 10 + 1
            self._change(block, PoolChange.TOP_UP, TaskId(task_id), raised)
        for task_id in range(first + 5, first + count, 50):
            self._change(block, PoolChange.CANCEL, TaskId(task_id), 0)
        self._round(block)

    def _change(self, block: _Block, kind: PoolChange, task_id: TaskId, reward: int) -> None:
        block.changes.append(_Change(kind, task_id, reward, self._rewards[task_id]))
        if kind is not PoolChange.PUBLISH:
            self._pool.remove(task_id)
        if kind in (PoolChange.PUBLISH, PoolChange.TOP_UP):
            self._pool.insert(task_id, reward)
        self._rewards[task_id] = reward
        publisher = self._publishers[task_id % _PUBLISHERS]
        self._history = hashing.pool_history(
            self._history, kind, task_id, publisher, _spec(task_id), reward
        )
        self._changes += 1

    def _round(self, block: _Block) -> None:
        """Select the head; the miners commit and reveal; the best claim closes the round."""
        task_id, unfinished = self._pool.head, self._history
        number = RoundNumber(len(self._headers) + 1)
        self._change(block, PoolChange.SELECT, task_id, self._rewards[task_id])
        size = min(self._load.miners_a_round, self._load.miners)
        chosen = self._random.choice(self._load.miners, size, replace=False).tolist()
        claims = self._random.normal(0.88, 0.02, size) * SCORE_ONE_PPM
        times = self._random.integers(0, _BLOCK_SECONDS, size)
        best: tuple[tuple[int, int, int], Address, int, bytes] | None = None
        for miner_number, claim, time in zip(chosen, claims.tolist(), times.tolist(), strict=True):
            miner, score = self._miners[miner_number], min(int(claim), SCORE_ONE_PPM)
            salt = miner_number.to_bytes(32)
            manifest = hashing.sha256(salt + int(number).to_bytes(8))
            opened = hashing.commitment(_CHAIN_ID, _ARENA, number, miner, manifest, salt)
            rank = rank_key(score, time, miner, first=False)
            if best is None or rank < best[0]:
                best = (rank, miner, score, opened[:22])
        assert best is not None
        self._reveals += size
        header = Header(
            number=number,
            parent=self._headers[-1][1] if self._headers else _genesis(),
            task_id=task_id,
            spec_digest=_spec(task_id),
            pool_history=unfinished,
            verdict=Verdict.WINNER,
            winner=best[1],
            score=best[2],
            reveal_digest=best[3],
            evidence_digest=ZERO_WORD,
            closed_at=number * _BLOCK_SECONDS,
        )
        self._headers.append((header, hashing.header_hash(header)))

    def _reorganise(self, depth: int) -> None:
        """Take the last blocks back, the last change first, and play others instead."""
        undone = self._blocks[-depth:]
        for block in reversed(undone):
            for change in reversed(block.changes):
                self._undo(change)
            self._history, self._published = block.history, block.published
            del self._headers[block.rounds :]
        del self._blocks[-depth:]
        self._reorganised += len(undone)
        for _ in undone:
            self._play_block()

    def _undo(self, change: _Change) -> None:
        if change.kind in (PoolChange.PUBLISH, PoolChange.TOP_UP):
            self._pool.remove(change.task_id)
        if change.kind is not PoolChange.PUBLISH:
            self._pool.insert(change.task_id, change.before)
        self._rewards[change.task_id] = change.before

    def _check(self) -> None:
        findings = verify_chain(self._headers, _genesis())
        if findings:
            raise LedgerError(str(findings[0]))
        order = list(self._pool)
        if order != sorted(order, key=lambda task_id: (-self._rewards[task_id], task_id)):
            raise LedgerError("the pool is not in the order of its rewards")


def _genesis() -> bytes:
    return hashing.domain_separator(_CHAIN_ID, _ARENA)


def _address(number: int) -> Address:
    return Address("0x" + hashing.keccak(number.to_bytes(32))[12:].hex())


def _spec(task_id: TaskId) -> bytes:
    return hashing.sha256(int(task_id).to_bytes(8))
