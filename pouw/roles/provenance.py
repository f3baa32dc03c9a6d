"""Was a revealed model trained as its manifest says? (paper, section 4.3)

Checkpoints have to be linked and to be had: that decides. Segments that the test key draws, which
no miner knew when it committed, are trained again: that is recorded, and deters.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pouw.documents import Checkpoint, Manifest, Replay, SegmentReplay, TaskSpec, remark
from pouw.errors import ContentMismatch, ContentTooLarge, MachineFailed, ProcessError
from pouw.hashing import keccak, round_seed
from pouw.ml.replays import (
    Link,
    LinkRequest,
    ReplayRequest,
    max_checkpoint_bytes,
    max_checkpoints_bytes,
)
from pouw.roles.base import Setup
from pouw.roles.replayer import Replayer
from pouw.storage.store import Store
from pouw.types import Address, RoundNumber

Progress = Callable[[str, int, int], None]

MODEL_FILE = "model.safetensors"
_LINKED = "linked"
_REPLAYED = "replayed"
_CRASHES = 2


@dataclass(frozen=True, slots=True)
class Claim:
    """A revealed model whose training is in question; ``manifest_digest`` as on chain."""

    number: RoundNumber
    miner: Address
    spec: TaskSpec
    manifest: Manifest
    manifest_digest: bytes

    @property
    def key(self) -> str:
        """What tells it from all other claims of an arena."""
        return claim_key(self.number, self.miner, self.manifest_digest)


def claim_key(number: RoundNumber, miner: Address, manifest_digest: bytes) -> str:
    """What tells one claim from all others of an arena."""
    return f"{number}/{miner}/{manifest_digest.hex()}"


def draw_segments(
    test_key: bytes, number: RoundNumber, miner: Address, count: int, wanted: int
) -> list[int]:
    """Which of ``count`` segments are trained again, in the order in which they were drawn.

    Segment k leads from checkpoint k - 1 (0: the start) to checkpoint k. Everybody draws the same;
    nobody can before the test set is open.
    """
    seed = round_seed(test_key, number, miner)
    return sorted(range(count), key=lambda index: keccak(seed + index.to_bytes(8, "big")))[:wanted]


def recipe_fault(claim: Claim, data_key: bytes) -> str | None:
    """What the manifest's own words show to be wrong: its seed, its sizes; else None."""
    manifest = claim.manifest
    seed = "0x" + round_seed(data_key, claim.number, claim.miner).hex()
    if manifest.seed != seed:
        return "its seed is not the one of round and miner"
    if not manifest.checkpoints:
        return "it lists no checkpoint"
    begin, previous = 0, None
    for checkpoint in manifest.checkpoints:
        if checkpoint.previous != previous or checkpoint.step <= begin:
            return f"the checkpoint of step {checkpoint.step} is not linked to the one before"
        limit = max_checkpoint_bytes(claim.spec.caps, checkpoint.step - begin)
        if checkpoint.bytes > limit:
            return (
                f"the checkpoint of step {checkpoint.step} has {checkpoint.bytes} bytes, "
                f"{limit} allowed"
            )
        begin, previous = checkpoint.step, checkpoint.cid
    total = sum(checkpoint.bytes for checkpoint in manifest.checkpoints)
    allowed = max_checkpoints_bytes(claim.spec.caps)
    if total > allowed:
        return f"its checkpoints have {total} bytes together, {allowed} allowed"
    return None


def checkpoint_path(folder: Path, checkpoint: Checkpoint) -> Path:
    """Where the file of a checkpoint lies below the folder of its claim."""
    return folder / f"{checkpoint.step}.safetensors"


def links_fault(
    claim: Claim,
    store: Store,
    replayer: Replayer,
    scratch: Path,
    say: Progress | None = None,
    *,
    keep: bool = False,
) -> str | None:
    """Why the checkpoints are no chain that ends in the model, or None.

    They are fetched one after the other, each only once the one before was found linked. At most
    one lies in ``scratch`` at a time; with ``keep``, ``scratch`` is the claim's own, files stay
    there, and whole ones from an earlier call are not fetched again. ContentNotFound where one
    cannot be had, MachineFailed where this machine cannot read what it fetched.
    """
    manifest, spec = claim.manifest, claim.spec
    last = len(manifest.checkpoints) - 1
    begin, digest = 0, ""
    for index, checkpoint in enumerate(manifest.checkpoints):
        if say:
            say("check the links", index, last + 1)
        with _folder(scratch, keep=keep) as folder:
            model = Path(folder) / MODEL_FILE
            try:
                path = _fetched(store, checkpoint, Path(folder))
                if index == last:
                    fetch(store, manifest.model.cid, manifest.model.bytes, model)
            except (ContentMismatch, ContentTooLarge) as error:
                return str(error)
            answer = replayer.link(
                LinkRequest(
                    id=f"{claim.key}, checkpoint {index}",
                    spec=spec,
                    link=Link(
                        path=path,
                        begin_step=begin,
                        step=checkpoint.step,
                        previous_sha256=digest,
                    ),
                    model=model if index == last else None,
                )
            )
        if answer.local:
            raise MachineFailed(f"{claim.key}: {answer.fault}")
        if answer.fault is not None:
            return answer.fault
        begin, digest = checkpoint.step, answer.sha256
    return None


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What to train again on what; ``stop_at_ms``: when to leave the rest undecided."""

    data: Path
    segments: Sequence[int]
    stop_at_ms: int | None = None


def drawn_plan(claim: Claim, test_key: bytes, data: Path, stop_at_ms: int) -> ReplayPlan:
    """What the spec asks an oracle to train again; ``data`` is the opened training archive."""
    count, wanted = len(claim.manifest.checkpoints), claim.spec.provenance.segments
    drawn = draw_segments(test_key, claim.number, claim.miner, count, wanted)
    return ReplayPlan(data, drawn, stop_at_ms)


def replay_segments(
    claim: Claim,
    plan: ReplayPlan,
    store: Store,
    replayer: Replayer,
    scratch: Path,
    say: Progress | None = None,
) -> Replay:
    """Train segments again, in the given order; ContentNotFound where a checkpoint is gone."""
    found: list[SegmentReplay] = []
    same, software, device = True, "", ""
    for done, index in enumerate(plan.segments):
        if say:
            say("train segments again", done, len(plan.segments))
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            request = _replay_request(claim, plan, index, store, Path(folder))
            try:
                answer = replayer.replay(request)
            except ProcessError as error:
                found.append(_unanswered(request, str(error)))
                same = False
                continue
        found.append(answer.segment)
        same = same and answer.same_profile
        software, device = answer.software, answer.device
    return Replay(
        miner=claim.miner,
        manifest="0x" + claim.manifest_digest.hex(),
        same_profile=same and bool(found),
        checkpoints=len(claim.manifest.checkpoints),
        segments=tuple(found),
        detail="",
        software=software,
        device=device,
    )


def _replay_request(
    claim: Claim, plan: ReplayPlan, index: int, store: Store, folder: Path
) -> ReplayRequest:
    manifest = claim.manifest
    end = manifest.checkpoints[index]
    begin = manifest.checkpoints[index - 1] if index else None
    return ReplayRequest(
        id=f"{claim.key}, segment {index}",
        spec=claim.spec,
        data=plan.data,
        seed=manifest.seed,
        recipe=manifest.recipe,
        begin=_fetched(store, begin, folder) if begin else None,
        begin_step=begin.step if begin else 0,
        end=_fetched(store, end, folder),
        end_step=end.step,
        software=manifest.software,
        device=manifest.device,
        stop_at_ms=plan.stop_at_ms,
    )


def _unanswered(request: ReplayRequest, why: str) -> SegmentReplay:
    return SegmentReplay(
        begin_step=request.begin_step,
        end_step=request.end_step,
        outcome="undecided",
        layer="",
        deviation_ppb=None,
        detail=remark(why),
        milliseconds=0,
    )


def fetch(store: Store, cid: str, size: int, path: Path) -> None:
    """Write the file ``cid`` to ``path``, unless an earlier call did."""
    if not path.exists():
        store.get_file(cid, path, size)


def _fetched(store: Store, checkpoint: Checkpoint, folder: Path) -> Path:
    path = checkpoint_path(folder, checkpoint)
    fetch(store, checkpoint.cid, checkpoint.bytes, path)
    return path


def _folder(scratch: Path, *, keep: bool) -> AbstractContextManager[str | Path]:
    return nullcontext(scratch) if keep else tempfile.TemporaryDirectory(dir=scratch)


class Provenance:
    """What an oracle finds about checkpoints, kept in its journal; calls take as long as they do.

    A child process that dies twice on the links of one model is the model's fault; once may be the
    machine's.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._replayer = Replayer(setup.home / "provenance.log")
        self._crashes: dict[str, int] = {}

    def warm(self, spec: TaskSpec) -> None:
        """Start the child where there is going to be work for it."""
        if spec.provenance.policy != "none":
            self._replayer.warm()

    def fault(
        self, claim: Claim, data_key: bytes, folder: Path, store: Store | None = None
    ) -> str | None:
        """Why the checkpoints are not the linked chain that the spec asks for; None where they are.

        What is fetched, from ``store`` where that is given, stays in ``folder``, which is the
        claim's own. ContentNotFound where a checkpoint cannot be had (yet), ProcessError where the
        child died.
        """
        if claim.spec.provenance.policy == "none":
            return None
        known: str | None = self._setup.journal.get(_LINKED, claim.key)
        if known is None:
            known = recipe_fault(claim, data_key) or self._links_fault(claim, folder, store) or ""
            self._setup.journal.put(_LINKED, claim.key, known)
        return known or None

    def _links_fault(self, claim: Claim, folder: Path, store: Store | None) -> str | None:
        store = store or self._setup.store
        try:
            return links_fault(claim, store, self._replayer, folder, keep=True)
        except MachineFailed:
            raise
        except ProcessError as error:
            self._crashes[claim.key] = self._crashes.get(claim.key, 0) + 1
            if self._crashes[claim.key] < _CRASHES:
                raise
            return remark(str(error))

    def replayed(self, claim_key: str) -> Replay | None:
        """What training segments again showed, once that is done."""
        known = self._setup.journal.get(_REPLAYED, claim_key)
        return None if known is None else Replay.model_validate_json(known)

    def replay(self, claim: Claim, plan: ReplayPlan) -> None:
        """Train segments again and keep what came of it."""
        with self._scratch() as folder:
            found = replay_segments(claim, plan, self._setup.store, self._replayer, Path(folder))
        self._setup.journal.put(_REPLAYED, claim.key, found.model_dump_json())
        outcomes = ", ".join(one.outcome for one in found.segments)
        self._setup.info(
            f"round {claim.number}: trained {len(found.segments)} segment(s) of {claim.miner} "
            f"again: {outcomes}",
            miner=claim.miner,
        )

    def close(self) -> None:
        """End the child process; what it was doing is begun again by the next start."""
        self._replayer.end()

    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="provenance-", dir=self._setup.home)
