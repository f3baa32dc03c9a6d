"""What an oracle finds about a revealed model, and the document that says so."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Final, Literal

from pouw import __version__
from pouw.documents import CaseCounts, Evidence, Judged, Manifest, Replay, Skipped, TaskSpec, remark
from pouw.errors import ContentMismatch, ContentTooLarge, DocumentError
from pouw.events import Revealed
from pouw.hashing import canonical_json
from pouw.roles.content import fetch_manifest
from pouw.storage.store import Store
from pouw.types import ZERO_ADDRESS, Address, RoundNumber, Task, TaskId, Verdict

Reason = Literal["score", "bound", "unavailable", "manifest", "caps", "model"]
NOT_TO_BE_HAD: Final = "not to be had: "
"""How the reason for `Invalid` begins where the publisher's content was missing."""
# Evidence has at most the findings, 190 bytes for each reveal that is skipped, 1,000 for each of 64
# segments, and 16 KiB for each of reason, software and device: 930,000 bytes of 1,048,576.
_LISTED: Final = 800
_JUDGED_BYTES: Final = 640 << 10
_BRIEF_BYTES: Final = 400
_SHORT_BYTES: Final = 100  # of a text in a brief finding
_REPLAY_BYTES: Final = 400  # of each text about a replay
_REPLAY_TEXTS: Final = ("detail", "software", "device")
VERDICTS: Final[dict[Verdict, Literal["winner", "no-true-claim", "invalid"]]] = {
    Verdict.WINNER: "winner",
    Verdict.NO_TRUE_CLAIM: "no-true-claim",
    Verdict.INVALID: "invalid",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an oracle would vote for and why; ``skipped`` rank below the winner."""

    verdict: Verdict
    winner: Address | None
    judged: tuple[Judged, ...]
    skipped: tuple[Revealed, ...]
    invalid_reason: str

    @property
    def winner_or_zero(self) -> Address:
        """The winner as the contract takes it."""
        return self.winner or ZERO_ADDRESS


def judged_score(
    event: Revealed,
    score_ppm: int | None,
    reason: Reason,
    detail: str,
    cases: tuple[CaseCounts, ...],
) -> Judged:
    """The finding on one reveal: true iff the recomputed score reaches the claim."""
    return Judged(
        miner=event.miner,
        manifest="0x" + event.manifest_digest.hex(),
        claim_ppm=event.claimed_score,
        score_ppm=score_ppm,
        true_claim=score_ppm is not None and score_ppm >= event.claimed_score,
        reason=reason,
        detail=remark(detail),
        cases=cases,
    )


def unavailable(event: Revealed, detail: str) -> Judged:
    """The finding on a reveal whose content cannot be had; it cannot be rechecked later."""
    return judged_score(event, None, "unavailable", detail, ())


def judge_manifest(
    store: Store, event: Revealed, task: Task, number: RoundNumber, spec: TaskSpec
) -> Judged | Manifest:
    """The finding where the revealed manifest is at fault, else the manifest.

    ContentNotFound where it is not there (yet).
    """
    try:
        manifest = fetch_manifest(store, event.manifest_digest)
        fault = manifest_fault(manifest, event.miner, task.task_id, number, spec)
    except (DocumentError, ContentMismatch, ContentTooLarge) as error:
        return judged_score(event, None, "manifest", str(error), ())
    if fault is not None:
        return judged_score(event, None, "manifest", fault, ())
    if manifest.model.bytes > spec.caps.model_bytes:
        detail = f"the model has {manifest.model.bytes} bytes, {spec.caps.model_bytes} allowed"
        return judged_score(event, None, "caps", detail, ())
    return manifest


def manifest_fault(
    manifest: Manifest, miner: Address, task_id: TaskId, number: RoundNumber, spec: TaskSpec
) -> str | None:
    """Why the manifest does not belong to the miner's reveal in this round, or None.

    Its checkpoints are looked at by ``pouw.roles.provenance``.
    """
    if (manifest.task, manifest.round) != (task_id, number):
        return f"it is for task {manifest.task}, round {manifest.round}"
    if manifest.miner.lower() != miner.lower():
        return f"it is {manifest.miner}'s"
    if manifest.network != spec.network:
        return "its network is not the one of the spec"
    return None


def build_evidence(
    number: RoundNumber,
    task: Task,
    oracle: Address,
    outcome: Judgement,
    provenance: tuple[Replay, ...] = (),
) -> Evidence:
    """The document behind a vote; ``provenance``: what training segments again showed.

    It fits into a document whatever was revealed: nobody can keep an oracle from voting by
    revealing a lot.
    """
    invalid = outcome.verdict == Verdict.INVALID
    skipped = tuple(
        Skipped(
            miner=event.miner,
            manifest="0x" + event.manifest_digest.hex(),
            claim_ppm=event.claimed_score,
            reason="task-invalid" if invalid else "ranks-below-a-true-claim",
        )
        for event in outcome.skipped[:_LISTED]
    )
    judged = _fitting(outcome.judged)
    return Evidence(
        task=task.task_id,
        round=number,
        oracle=oracle,
        verdict=VERDICTS[outcome.verdict],
        winner=outcome.winner,
        invalid_reason=remark(outcome.invalid_reason),
        judged=judged,
        judged_more=len(outcome.judged) - len(judged),
        skipped=skipped,
        skipped_more=len(outcome.skipped) - len(skipped),
        provenance=tuple(_shortened(replay) for replay in provenance),
        software=f"pouw {__version__}, Python {platform.python_version()}",
        device=platform.machine() or "unknown",
    )


def _fitting(judged: tuple[Judged, ...]) -> tuple[Judged, ...]:
    """``judged`` in at most ``_JUDGED_BYTES``: the winner, then the highest ranked, count most."""
    if _size(judged) <= _JUDGED_BYTES:
        return judged
    *above, last = judged
    whole = last if _size((last,)) <= _JUDGED_BYTES // 2 else _brief(last)
    above = above[:_LISTED]
    # Room for all of them in brief comes first.
    left = _JUDGED_BYTES - _size((whole,)) - len(above) * _BRIEF_BYTES
    kept: list[Judged] = []
    for finding in above:
        left -= max(0, _size((finding,)) - _BRIEF_BYTES)
        kept.append(finding if left >= 0 else _brief(finding))
    return (*kept, whole)


def _brief(finding: Judged) -> Judged:
    detail = f"counts left out; {_cut(finding.detail, _SHORT_BYTES)}"
    return finding.model_copy(update={"cases": (), "detail": detail})


def _shortened(replay: Replay) -> Replay:
    segments = tuple(
        segment.model_copy(
            update={
                "layer": _cut(segment.layer, _REPLAY_BYTES),
                "detail": _cut(segment.detail, _REPLAY_BYTES),
            }
        )
        for segment in replay.segments
    )
    texts = {name: _cut(getattr(replay, name), _REPLAY_BYTES) for name in _REPLAY_TEXTS}
    return replay.model_copy(update={"segments": segments, **texts})


def _cut(text: str, size: int) -> str:
    """As much of ``text`` as has ``size`` bytes in JSON."""
    for end, letter in enumerate(text):
        size -= len(canonical_json(letter)) - len('""')
        if size < 0:
            return text[:end]
    return text


def _size(judged: tuple[Judged, ...]) -> int:
    return sum(len(canonical_json(one.model_dump(mode="json"))) + 1 for one in judged)
