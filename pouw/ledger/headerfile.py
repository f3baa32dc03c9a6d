"""Headers as one JSON document: what `pouw node headers --json` prints and `compare` reads.

A chain that was kept before a reorganisation, or that somebody else sends, is verified link by
link before it is compared with another. Unlike the documents of the protocol it is hashed by
nobody, has no canonical form and grows with the chain.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from pouw.documents import Count, HexAddress, HexDigest, Part, Positive, Ppm
from pouw.errors import LedgerError
from pouw.hashing import domain_separator
from pouw.ledger.header import verify_chain
from pouw.ledger.history import History
from pouw.types import Address, Header, RoundNumber, TaskId, Verdict

VerdictWord = Literal["none", "winner", "no-true-claim", "invalid"]
RevealDigest = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{44}$")]

_WORDS: dict[Verdict, VerdictWord] = {
    Verdict.NONE: "none",
    Verdict.WINNER: "winner",
    Verdict.NO_TRUE_CLAIM: "no-true-claim",
    Verdict.INVALID: "invalid",
}
_VERDICTS = {word: verdict for verdict, word in _WORDS.items()}


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
    """The closed rounds of one arena, oldest first."""

    schema_: Literal["pouw/headers/1"] = Field(default="pouw/headers/1", alias="schema")
    chain_id: Count
    arena: HexAddress
    headers: tuple[HeaderLine, ...]

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
        """The headers of a history's closed rounds."""
        return cls(
            chain_id=history.chain_id,
            arena=history.arena,
            headers=tuple(
                _line(header, record.header_hash or b"", record.unfinished)
                for record in history.rounds.values()
                if (header := record.header) is not None
            ),
        )

    @property
    def genesis(self) -> bytes:
        """The parent of the first header: it binds them to one arena on one chain."""
        return domain_separator(self.chain_id, Address(self.arena))

    def verified(self) -> tuple[Header, ...]:
        """The headers; LedgerError naming the first link that does not hold."""
        pairs = [(line.header, _bytes(line.hash)) for line in self.headers]
        findings = verify_chain(pairs, self.genesis)
        if findings:
            raise LedgerError(str(findings[0]), hint="this chain of headers was altered")
        return tuple(header for header, _ in pairs)


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
