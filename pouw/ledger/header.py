"""The chain of headers: one a round, each naming its parent (paper, section 4 and Fig. 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pouw.errors import LedgerError
from pouw.hashing import domain_separator, header_hash
from pouw.ledger.history import Finding, History, RoundRecord, Rule
from pouw.types import Header, RoundNumber, TaskId


def rebuild(record: RoundRecord, parent: bytes) -> Header:
    """The header of a closed round from everything but its logged hash; LedgerError if not closed.

    What the round closed with is read from its record, task and pool from the replay.
    """
    if record.header is None:
        raise LedgerError(f"round {record.number} is not closed")
    won = record.reveal_of(record.winner)
    return Header(
        number=record.number,
        parent=parent,
        task_id=record.task.task_id,
        spec_digest=record.task.spec_digest,
        pool_history=record.selection.pool_history,
        verdict=record.verdict,
        winner=record.winner,
        score=record.score,
        reveal_digest=won.digest if won else bytes(22),
        evidence_digest=record.evidence_digest,
        closed_at=record.header.closed_at,
    )


def link(header: Header, logged: bytes, parents: Iterable[bytes]) -> Header:
    """``header`` with the one of ``parents`` under which it hashes to ``logged``, else the last."""
    for parent in parents:
        header = replace(header, parent=parent)
        if header_hash(header) == logged:
            break
    return header


def verify_chain(headers: Iterable[tuple[Header, bytes]], genesis: bytes) -> list[Finding]:
    """Check headers with their logged hashes link by link; ``genesis`` is the parent of the first.

    A lie is found where it lies: the header after one whose logged hash is wrong may name either
    that hash or the right one.
    """
    findings = []
    parents, number = {genesis}, 1
    for header, logged in headers:
        computed = header_hash(header)
        if header.number != number:
            findings.append(_broken(header, f"follows header {number - 1}"))
        elif header.parent not in parents:
            findings.append(_broken(header, f"names 0x{header.parent.hex()} as its parent"))
        if computed != logged:
            findings.append(_broken(header, f"hashes to 0x{computed.hex()}, not 0x{logged.hex()}"))
        parents, number = {logged, computed}, header.number + 1
    return findings


def verify_headers(history: History) -> list[Finding]:
    """Rebuild the header of every closed round and check the chain of them."""
    pairs: list[tuple[Header, bytes]] = []
    genesis = domain_separator(history.chain_id, history.arena)
    parents = [genesis]
    for record in history.rounds.values():
        if record.header_hash is not None:
            header = link(rebuild(record, parents[0]), record.header_hash, parents)
            pairs.append((header, record.header_hash))
            parents = [record.header_hash, header_hash(header)]
    return verify_chain(pairs, genesis)


def unfinished_tasks(history: History, number: RoundNumber) -> tuple[TaskId, ...]:
    """The list that header ``number`` stands for by its ``pool_history``, in the pool's order.

    These are the tasks that the round before left unfinished (paper, section 4.5); the first of
    them is the one that round ``number`` took. KeyError where there is no such round.
    """
    return history.rounds[number].selection.pool


def _broken(header: Header, detail: str) -> Finding:
    return Finding(header.number, header.task_id, Rule.HEADER, detail)
