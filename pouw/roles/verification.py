"""Checking the provenance of a past round's model from public data alone, as anybody can."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pouw.documents import Replay
from pouw.errors import ContentError, ContentNotFound, LedgerError
from pouw.ledger.history import RevealRecord, RoundRecord
from pouw.roles.base import Observer
from pouw.roles.content import fetch_manifest, fetch_spec, open_archive
from pouw.roles.follow import read_history
from pouw.roles.provenance import (
    Claim,
    Progress,
    ReplayPlan,
    draw_segments,
    links_fault,
    recipe_fault,
    replay_segments,
)
from pouw.roles.replayer import Replayer
from pouw.types import Address, RoundNumber, Verdict


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What to check; ``miner`` None: the round's winner.

    ``segments``: how many of the drawn order to train again, None: as many as the spec asks of its
    oracles, all of them where it asks for none. 0: links only.
    """

    number: RoundNumber
    miner: Address | None = None
    segments: int | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found; ``fault``: why the checkpoints are no linked chain, None where they are."""

    round: int
    miner: Address
    policy: str
    fault: str | None
    missing: str | None
    replay: Replay | None

    @property
    def exit_code(self) -> int:
        """0: nothing speaks against it; 2: a fault or a segment that differs; 3: undecided."""
        outcomes = [one.outcome for one in self.replay.segments] if self.replay else []
        if self.fault or "unlike" in outcomes or "unusable" in outcomes:
            return 2
        return 3 if self.missing or "undecided" in outcomes else 0

    @property
    def summary(self) -> str:
        """What speaks against it, or why that cannot be told, in one line."""
        if self.fault or self.missing:
            return self.fault or self.missing or ""
        segments = self.replay.segments if self.replay else ()
        told = [
            f"steps {one.begin_step} to {one.end_step}: {one.outcome}"
            for one in segments
            if one.outcome not in ("exact", "close")
        ]
        return ", ".join(told) or "nothing speaks against it"

    def to_json(self) -> dict[str, Any]:
        """The finding as one JSON document."""
        document = asdict(self)
        document["replay"] = self.replay.model_dump(mode="json") if self.replay else None
        return {**document, "exit_code": self.exit_code}


def verify(observer: Observer, options: VerifyOptions, say: Progress | None = None) -> Verification:
    """Check links, then train drawn segments again; LedgerError where there is no such reveal."""
    record = _round(observer, options.number)
    reveal = _reveal(record, options.miner)
    replayer = Replayer(observer.home / "provenance.log")
    try:
        return verify_reveal(observer, record, reveal, replayer, options.segments, say)
    finally:
        replayer.end()


def verify_reveal(
    observer: Observer,
    record: RoundRecord,
    reveal: RevealRecord,
    replayer: Replayer,
    segments: int | None = None,
    say: Progress | None = None,
) -> Verification:
    """As `verify`, of a reveal that is at hand."""
    store = observer.store
    spec = fetch_spec(store, record.task.spec_digest)
    claim = Claim(
        number=record.number,
        miner=reveal.miner,
        spec=spec,
        manifest=fetch_manifest(store, reveal.manifest_digest),
        manifest_digest=reveal.manifest_digest,
    )
    fault: str | None = None
    missing: str | None = None
    replay: Replay | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="provenance-", dir=observer.home) as name:
            scratch = Path(name)
            fault = recipe_fault(claim, record.data_key)
            if fault is None:
                fault = links_fault(claim, store, replayer, scratch, say)
            drawn = _segments(claim, record, segments)
            if fault is None and drawn:
                data = open_archive(
                    store, spec, "train", record.data_key, record.task.key_hash, scratch
                )
                plan = ReplayPlan(data, drawn)
                replay = replay_segments(claim, plan, store, replayer, scratch, say)
    except ContentNotFound as error:
        missing = str(error)
    except ContentError as error:
        fault = str(error)
    return Verification(record.number, reveal.miner, spec.provenance.policy, fault, missing, replay)


def _round(observer: Observer, number: RoundNumber) -> RoundRecord:
    rounds = read_history(observer).rounds
    if number not in rounds:
        raise LedgerError(f"there is no round {number}", hint=f"rounds: {len(rounds)} so far")
    return rounds[number]


def _reveal(record: RoundRecord, miner: Address | None) -> RevealRecord:
    if miner is None:
        if record.verdict is not Verdict.WINNER:
            raise LedgerError(
                f"round {record.number} has no winner", hint="name a revealer with --miner ADDRESS"
            )
        miner = record.winner
    reveal = record.reveal_of(miner)
    if reveal is None:
        revealed = ", ".join(one.miner for one in record.reveals) or "nobody"
        raise LedgerError(
            f"{miner} revealed nothing in round {record.number}", hint=f"revealed: {revealed}"
        )
    return reveal


def _segments(claim: Claim, record: RoundRecord, wanted: int | None) -> Sequence[int]:
    count = len(claim.manifest.checkpoints)
    if wanted is None:
        provenance = claim.spec.provenance
        wanted = provenance.segments if provenance.policy == "replay" else count
    if record.test_key is None:
        raise LedgerError(f"the test set of round {record.number} was never opened")
    return draw_segments(record.test_key, record.number, claim.miner, count, wanted)
