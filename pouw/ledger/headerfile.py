"""Headers as one JSON document: what `pouw node headers --json` prints and `compare` reads.

A chain that was kept before a reorganisation, or that somebody else sends, is verified before it
is compared with another: headers link by link, and the pool's changes against the rolling hash
that each header carries, so that every selection is seen to be right (paper, 4.5). Unlike the
documents of the protocol the file is hashed by nobody, has no canonical form and grows with the
chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from pouw.documents import Count, HexAddress, HexDigest, Part, Positive, Ppm
from pouw.errors import LedgerError
from pouw.hashing import domain_separator, pool_history
from pouw.ledger.forkchoice import Chain
from pouw.ledger.header import verify_chain
from pouw.ledger.history import History, Selection
from pouw.ledger.pool import Pool
from pouw.types import ZERO_WORD, Address, Header, PoolChange, RoundNumber, TaskId, Verdict

VerdictWord = Literal["none", "winner", "no-true-claim", "invalid"]
PoolWord = Literal["publish", "top-up", "cancel", "select"]
Wei = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,38})$")]
RevealDigest = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{44}$")]

_WORDS: dict[Verdict, VerdictWord] = {
    Verdict.NONE: "none",
    Verdict.WINNER: "winner",
    Verdict.NO_TRUE_CLAIM: "no-true-claim",
    Verdict.INVALID: "invalid",
}
_KINDS: dict[PoolWord, PoolChange] = {
    "publish": PoolChange.PUBLISH,
    "top-up": PoolChange.TOP_UP,
    "cancel": PoolChange.CANCEL,
    "select": PoolChange.SELECT,
}
_POOL_WORDS = {kind: word for word, kind in _KINDS.items()}
_VERDICTS = {word: verdict for verdict, word in _WORDS.items()}


class PoolLine(Part):
    """One change of the pool; ``reward_wei``: what the task is worth after it, in decimal."""

    kind: PoolWord
    task: Positive
    publisher: HexAddress
    spec_digest: HexDigest
    reward_wei: Wei


class HeaderLine(Part):
    """One header, its logged hash, and the tasks that its selection left in the pool."""

    number: Positive
    hash: HexDigest
    parent: HexDigest
    task: Positive
    spec_digest: HexDigest
    pool_history: HexDigest
    verdict: VerdictWord
    winner: HexAddress
    score_ppm: Ppm
    reveal_digest: RevealDigest
    evidence_digest: HexDigest
    closed_at: Count
    unfinished: tuple[Positive, ...]

    @property
    def header(self) -> Header:
        """The record whose hash this line carries."""
        return Header(
            number=RoundNumber(self.number),
            parent=_bytes(self.parent),
            task_id=TaskId(self.task),
            spec_digest=_bytes(self.spec_digest),
            pool_history=_bytes(self.pool_history),
            verdict=_VERDICTS[self.verdict],
            winner=Address(self.winner),
            score=self.score_ppm,
            reveal_digest=_bytes(self.reveal_digest),
            evidence_digest=_bytes(self.evidence_digest),
            closed_at=self.closed_at,
        )


class HeaderFile(Part):
    """The closed rounds of one arena, oldest first, and the pool's changes up to the last."""

    schema_: Literal["pouw/headers/1"] = Field(default="pouw/headers/1", alias="schema")
    chain_id: Count
    arena: HexAddress
    headers: tuple[HeaderLine, ...]
    pool: tuple[PoolLine, ...]

    @classmethod
    def parse(cls, data: bytes) -> HeaderFile:
        """The file in ``data``; LedgerError where it is none."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "document"
            raise LedgerError(
                f"not a file of headers: {where}: {first['msg']}",
                hint="write one with `pouw node headers --json > FILE`",
            ) from error

    @classmethod
    def of(cls, history: History) -> HeaderFile:
        """The headers of a history's closed rounds; LedgerError where tasks were never told."""
        closed = [record for record in history.rounds.values() if record.header is not None]
        last = closed[-1].selection if closed else None
        return cls(
            chain_id=history.chain_id,
            arena=history.arena,
            headers=tuple(
                _line(record.header, record.header_hash or b"", record.unfinished)
                for record in closed
                if record.header is not None
            ),
            pool=tuple(_pool_lines(history, last)),
        )

    @property
    def genesis(self) -> bytes:
        """The parent of the first header: it binds them to one arena on one chain."""
        return domain_separator(self.chain_id, Address(self.arena))

    def verified(self) -> Chain:
        """The chain; LedgerError naming the first header or change of the pool that is wrong."""
        pairs = [(line.header, _bytes(line.hash)) for line in self.headers]
        findings = verify_chain(pairs, self.genesis)
        if findings:
            raise LedgerError(str(findings[0]), hint="this chain of headers was altered")
        return Chain(tuple(header for header, _ in pairs), self._known())

    def _known(self) -> frozenset[bytes]:
        """The specs known to the pool, once every change and every selection was checked."""
        pool, history = Pool(), ZERO_WORD
        known: dict[TaskId, bytes] = {}
        waiting = iter(self.headers)
        line = next(waiting, None)
        for change in self.pool:
            task_id, reward = TaskId(change.task), int(change.reward_wei)
            kind, spec = _KINDS[change.kind], _bytes(change.spec_digest)
            if (kind is PoolChange.PUBLISH) == (task_id in pool):
                raise _altered(change, "is not what the pool allows")
            if kind is not PoolChange.PUBLISH:
                head = pool.head
                pool.remove(task_id)
                if kind is PoolChange.SELECT and task_id != head:
                    raise _altered(change, f"but task {head} was the head of the pool")
            if kind in (PoolChange.PUBLISH, PoolChange.TOP_UP):
                pool.insert(task_id, reward)
                known[task_id] = spec
            elif kind is PoolChange.CANCEL:
                del known[task_id]
            elif line is not None and line.pool_history == _hex(history):
                if line.task != task_id or tuple(pool) != line.unfinished:
                    raise _altered(change, f"is not what round {line.number} says")
                line = next(waiting, None)
            publisher = Address(change.publisher)
            history = pool_history(history, kind, task_id, publisher, spec, reward)
        if line is not None:
            raise LedgerError(
                f"round {line.number}: its pool history does not follow from the pool's changes",
                hint="this chain of headers was altered",
            )
        return frozenset(known.values())


def _pool_lines(history: History, last: Selection | None) -> Iterator[PoolLine]:
    """The changes up to selection ``last``, that one included."""
    selections = iter(history.selections)
    for step in history.steps if last is not None else ():
        task = history.tasks.get(step.task_id)
        if task is None:
            raise LedgerError(f"task {step.task_id} is in the pool, but was never published")
        yield PoolLine(
            kind=_POOL_WORDS[step.kind],
            task=step.task_id,
            publisher=task.publisher,
            spec_digest=_hex(task.spec_digest),
            reward_wei=str(step.reward_after),
        )
        if step.kind is PoolChange.SELECT and next(selections) == last:
            return


def _altered(change: PoolLine, detail: str) -> LedgerError:
    return LedgerError(
        f"the pool: {change.kind} of task {change.task} {detail}",
        hint="this chain of headers was altered",
    )


def _line(header: Header, logged: bytes, unfinished: Iterable[TaskId]) -> HeaderLine:
    return HeaderLine(
        number=header.number,
        hash=_hex(logged),
        parent=_hex(header.parent),
        task=header.task_id,
        spec_digest=_hex(header.spec_digest),
        pool_history=_hex(header.pool_history),
        verdict=_WORDS[header.verdict],
        winner=header.winner,
        score_ppm=header.score,
        reveal_digest=_hex(header.reveal_digest),
        evidence_digest=_hex(header.evidence_digest),
        closed_at=header.closed_at,
        unfinished=tuple(unfinished),
    )


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])
