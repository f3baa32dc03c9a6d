"""The three documents that live off chain: TaskSpec, Manifest and Evidence.

Each is canonical JSON of at most 1 MiB (``pouw.hashing.canonical_json``), so its bytes and its
sha2-256 digest determine each other. Numbers are integers with the unit in the name; unknown keys
are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from pouw.errors import DocumentError
from pouw.hashing import MAX_DOCUMENT_BYTES, canonical_json, sha256
from pouw.types import SCORE_ONE_PPM

MAX_CHECKPOINTS: Final = 2048
# No control characters: what a stranger wrote must not move a reader's terminal.
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=_PRINTABLE)]
Remark = Annotated[str, StringConstraints(max_length=4096, pattern=_PRINTABLE)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,63}$")]
# CIDv1, raw or dag-pb, sha2-256, and no padding bits: what pouw.storage takes, and no more.
Cid = Annotated[str, StringConstraints(pattern=r"^baf(krei|ybei)[a-h][a-z2-7]{50}[aeimquy4]$")]
HexAddress = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$")]
HexDigest = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{64}$")]
Ppm = Annotated[int, Field(ge=0, le=SCORE_ONE_PPM)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]
Milli = Annotated[int, Field(ge=-(2**53), le=2**53)]
Setting = bool | int | Word | None
Argument = bool | int | Word | tuple[Annotated[int, Field(ge=-(2**31), le=2**31)], ...]


def remark(text: str) -> str:
    """``text`` as a document may hold it: one line, no control characters, bounded."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:4096]


class Part(BaseModel):
    """A frozen, strict piece of a document."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Document(Part):
    """A whole document: parses from and writes to canonical bytes, and knows its digest."""

    SCHEMA: ClassVar[str]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The document in ``data``; DocumentError where it is too large, not canonical or wrong."""
        if len(data) > MAX_DOCUMENT_BYTES:
            raise DocumentError(f"{cls.__name__}: {len(data)} bytes, at most {MAX_DOCUMENT_BYTES}")
        try:
            document = cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "document"
            raise DocumentError(
                f"not a valid {cls.__name__}: {where}: {first['msg']} "
                f"({error.error_count()} problem(s) in all)"
            ) from error
        if document.encode() != data:
            raise DocumentError(
                f"{cls.__name__} is not canonical JSON",
                hint="sort the keys, drop spaces and repeated keys, write UTF-8",
            )
        return document

    def encode(self) -> bytes:
        """The canonical bytes; DocumentError where they pass 1 MiB."""
        data = canonical_json(self.model_dump(mode="json", by_alias=True))
        if len(data) > MAX_DOCUMENT_BYTES:
            raise DocumentError(
                f"{type(self).__name__}: {len(data)} bytes, at most {MAX_DOCUMENT_BYTES}"
            )
        return data

    def digest(self) -> bytes:
        """sha2-256 of the canonical bytes: the 32 bytes that go on chain."""
        return sha256(self.encode())


class Archive(Part):
    """A sealed archive: ``cid`` and ``bytes`` are those of the sealed file."""

    cid: Cid
    bytes: Positive
    cases: Annotated[int, Field(ge=1, le=1_000_000)]


class Network(Part):
    """A network of the closed registry with its arguments (checked again by the registry)."""

    name: Word
    arguments: dict[Word, Argument]


class Window(Part):
    """Where the foreground of one channel lies, in thousandths of a stored unit.

    As nnU-Net normalises CT: clip to ``lower`` and ``upper`` (its 0.5 and 99.5 percentiles), take
    off the mean, divide by the deviation.
    """

    lower_milli: Milli
    upper_milli: Milli
    mean_milli: Milli
    deviation_milli: Positive


class InferenceRecipe(Part):
    """How an image becomes labels; every scorer follows it to the letter, in float32.

    Axes are in array order. ``spacing_um``: micrometres a voxel to resample to (empty: as stored);
    ``windows``: one a channel where the normalisation is "window", else none; a 2D network sees the
    slices of a volume along its last axis.
    """

    spacing_um: tuple[Positive, ...]
    normalisation: Literal["zscore", "zscore-nonzero", "window", "none"]
    windows: Annotated[tuple[Window, ...], Field(max_length=16)] = ()
    patch: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=2, max_length=3)
    ]
    overlap_ppm: Annotated[int, Field(ge=0, le=900_000)]
    blending: Literal["constant", "gaussian"]
    dtype: Literal["float32"]
    ties: Literal["lowest-label"]

    @model_validator(mode="after")
    def _windows_belong(self) -> Self:
        if bool(self.windows) != (self.normalisation == "window"):
            raise ValueError("windows belong to the normalisation 'window'")
        return self


class Metric(Part):
    """Mean Dice over foreground classes, then over cases, floored to ppm."""

    name: Literal["dice"]
    empty_class: Literal["one"]


class Provenance(Part):
    """What a model must show of its training (paper, section 4.3).

    ``manifest``: its checkpoints are linked and can be had. ``replay``: oracles also train
    ``segments`` of them again and record what came of it; so that this says something on other
    machines, checkpoints should then be at most ``segment_steps`` optimiser steps apart.
    """

    policy: Literal["none", "manifest", "replay"]
    segment_steps: Annotated[int, Field(ge=1, le=2**24)] = 50
    segments: Annotated[int, Field(ge=1, le=64)] = 3


class Caps(Part):
    """What an oracle spends on one model at most.

    ``checkpoints_bytes``: all checkpoints of its manifest together. A spec may leave it out, and is
    written without it then (``pouw.ml.replays.max_checkpoints_bytes`` has what counts).
    """

    model_bytes: Positive
    parameters: Positive
    activation_bytes: Positive
    checkpoints_bytes: Positive | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Specs that were published before there was the key keep their digests."""
        values: dict[str, Any] = handler(self)
        return {name: value for name, value in values.items() if value is not None}


class Licence(Part):
    """Under what terms the data may be used and what to cite."""

    name: Text
    citation: Text


class TaskSpec(Document):
    """What a publisher asks for; its digest is ``specDigest`` on chain.

    ``retention_days``: how long after the end of its round miners and oracles go on serving models
    that did not win.
    """

    SCHEMA: ClassVar[str] = "pouw/task-spec/1"

    schema_: Literal["pouw/task-spec/1"] = Field(default="pouw/task-spec/1", alias="schema")
    title: Text
    modality: Word
    spatial_dims: Literal[2, 3]
    channels: Annotated[tuple[Word, ...], Field(min_length=1, max_length=16)]
    labels: Annotated[tuple[Word, ...], Field(min_length=2, max_length=256)]
    network: Network
    inference: InferenceRecipe
    metric: Metric
    training_seconds: Positive
    provenance: Provenance
    train: Archive
    test: Archive
    caps: Caps
    licence: Licence
    retention_days: Annotated[int, Field(ge=0, le=36_500)] = 30
    data_becomes_public: Literal[True]

    @model_validator(mode="after")
    def _axes_agree(self) -> Self:
        if len(self.inference.patch) != self.spatial_dims:
            raise ValueError(f"patch has {len(self.inference.patch)} axes, not {self.spatial_dims}")
        if len(self.inference.spacing_um) not in (0, 3):
            raise ValueError("spacing_um is empty or names three axes")
        if len(self.inference.windows) not in (0, len(self.channels)):
            raise ValueError(f"windows are not one for each of {len(self.channels)} channel(s)")
        return self


class ModelFile(Part):
    """The final weights: a safetensors file."""

    cid: Cid
    bytes: Positive
    dtype: Literal["float32", "bfloat16"]


class Checkpoint(Part):
    """One link of the training's chain; ``previous`` is the CID before it, None for the first."""

    step: Count
    milliseconds: Count
    cid: Cid
    bytes: Positive
    previous: Cid | None
    train_loss_ppm: Annotated[int, Field(ge=-(2**53), le=2**53)]
    validation_dice_ppm: Ppm


class Recipe(Part):
    """How the model was trained, in the words of the trainer.

    ``engine``: on what and how it computed; ``settings``: of the training itself. Both hold what a
    stranger needs to repeat it, and are checked again by whoever does.
    """

    engine: Annotated[dict[Word, Setting], Field(max_length=64)]
    settings: Annotated[dict[Word, Setting], Field(max_length=64)]


class Manifest(Document):
    """What a miner reveals: the model, how it came to be, and on what."""

    SCHEMA: ClassVar[str] = "pouw/manifest/1"

    schema_: Literal["pouw/manifest/1"] = Field(default="pouw/manifest/1", alias="schema")
    task: Count
    round: Count
    miner: HexAddress
    network: Network
    model: ModelFile
    checkpoints: Annotated[tuple[Checkpoint, ...], Field(max_length=MAX_CHECKPOINTS)]
    seed: HexDigest
    recipe: Recipe
    software: Text
    device: Text


class CaseCounts(Part):
    """Integer true positives, false positives and false negatives of one case.

    ``counts[k]`` belongs to label ``k + 1``. A case that crashed or came out non-finite has
    ``failed`` true and scores 0.
    """

    name: Text
    failed: bool
    counts: tuple[tuple[Count, Count, Count], ...]


class Judged(Part):
    """One revealed model that the oracle looked at, in the order it did.

    ``reason`` "bound": ``cases`` already exclude the claim, so the rest was not scored and there is
    no score; the counts of the last case may be those it would have, were its rest perfect.
    """

    miner: HexAddress
    manifest: HexDigest
    claim_ppm: Ppm
    score_ppm: Ppm | None
    true_claim: bool
    reason: Literal["score", "bound", "unavailable", "manifest", "caps", "model"]
    detail: Remark
    cases: tuple[CaseCounts, ...]


class Skipped(Part):
    """A reveal that need not be scored: it ranks below a true claim, so it can change nothing."""

    miner: HexAddress
    manifest: HexDigest
    claim_ppm: Ppm
    reason: Literal["ranks-below-a-true-claim", "task-invalid"]


class SegmentReplay(Part):
    """One segment that was trained again, from one checkpoint (0: the start) to the next.

    ``exact``: every bit agrees. ``close``: within the bound for other machines. ``unlike``: not.
    ``undecided``: no time left, trained on what this machine cannot repeat, or so sensitive to
    rounding that two repetitions here part as far. ``unusable``: what the manifest names cannot be
    trained again. ``deviation_ppb``: the distance between both ends in the worst layer, ``layer``,
    relative to how far that training moved the layer.
    """

    begin_step: Count
    end_step: Count
    outcome: Literal["exact", "close", "unlike", "undecided", "unusable"]
    layer: Remark
    deviation_ppb: Count | None
    detail: Remark
    milliseconds: Count


class Replay(Part):
    """What an oracle saw when it trained a model's segments again; it decides nothing.

    ``same_profile``: software, hardware and threads are those that the manifest names, so that
    every bit has to agree. ``segments`` are in the order in which the test key drew them.
    """

    miner: HexAddress
    manifest: HexDigest
    same_profile: bool
    checkpoints: Count
    segments: tuple[SegmentReplay, ...]
    detail: Remark
    software: Remark
    device: Remark


class Evidence(Document):
    """Why an oracle voted as it did; ``evidenceDigest`` on chain.

    What was unavailable then cannot be rechecked later; ``detail`` says what was tried. Where it
    would not fit otherwise, findings go without ``cases``, the last one's least, and
    ``judged_more`` and ``skipped_more`` say how many reveals are not listed. Texts about a replay
    are cut after 400 bytes.
    """

    SCHEMA: ClassVar[str] = "pouw/evidence/1"

    schema_: Literal["pouw/evidence/1"] = Field(default="pouw/evidence/1", alias="schema")
    task: Count
    round: Count
    oracle: HexAddress
    verdict: Literal["winner", "no-true-claim", "invalid"]
    winner: HexAddress | None
    invalid_reason: Remark
    judged: tuple[Judged, ...]
    judged_more: Count = 0
    skipped: tuple[Skipped, ...]
    skipped_more: Count = 0
    provenance: tuple[Replay, ...] = ()
    software: Text
    device: Text
