"""What roles ask ``python -m pouw.ml.provenance`` and what it answers: plain JSON records.

This module imports no torch. A *link* is a checkpoint as its manifest names it; a *segment* is the
training between two of them, the first one beginning at the start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from pouw.documents import (
    Caps,
    Count,
    HexDigest,
    Positive,
    Recipe,
    Remark,
    SegmentReplay,
    TaskSpec,
    Text,
)
from pouw.ml.requests import Record

MAX_SEGMENT_STEPS: Final = 1 << 24
STATES: Final = 4  # weights, their average and AdamW's two moments
_HEADER_BYTES: Final = 4 << 20
_LARGEST_HELD: Final = 64
_MOST_BYTES: Final = 1 << 53  # that a document can name


class Link(Record):
    """A checkpoint file with what its manifest says of it; ``begin_step`` is the one before's.

    ``previous_sha256``: of the file before, in hex; empty for the first.
    """

    path: Path
    begin_step: Count
    step: Count
    previous_sha256: str


class LinkRequest(Record):
    """Is the file the link that it is said to be, and, for the last one, is ``model`` its average?

    The averaged weights are what a miner submits.
    """

    kind: Literal["link"] = "link"
    id: Text
    spec: TaskSpec
    link: Link
    model: Path | None = None


class ReplayRequest(Record):
    """Train one segment again and compare.

    ``data``: the opened training archive; ``seed``: of round and miner; ``begin`` None: the start.
    ``software`` and ``device`` are those of the manifest. Past ``stop_at_ms`` the answer is
    "undecided".
    """

    kind: Literal["replay"] = "replay"
    id: Text
    spec: TaskSpec
    data: Path
    seed: HexDigest
    recipe: Recipe
    begin: Path | None
    begin_step: Count
    end: Path
    end_step: Count
    software: Text
    device: Text
    stop_at_ms: Positive | None = None


class Question(Record):
    """One line of the child's standard input."""

    ask: Annotated[LinkRequest | ReplayRequest, Field(discriminator="kind")]


class LinkAnswer(Record):
    """``fault``: why the file is not that link; ``sha256``: of the file, in hex, where it is.

    ``local``: the fault is this machine's, and says nothing about the file.
    """

    kind: Literal["link"] = "link"
    id: Text
    fault: Remark | None
    sha256: str
    local: bool = False


class ReplayAnswer(Record):
    """What training the segment again showed, and on what it was done."""

    kind: Literal["replay"] = "replay"
    id: Text
    segment: SegmentReplay
    same_profile: bool
    software: Text
    device: Text


class Answer(Record):
    """One line of the child's standard output."""

    answer: Annotated[LinkAnswer | ReplayAnswer, Field(discriminator="kind")]


def max_checkpoint_bytes(caps: Caps, steps: int) -> int:
    """What a checkpoint ``steps`` after the one before has at most, in a task with these caps."""
    return STATES * caps.model_bytes + 4 * min(steps, MAX_SEGMENT_STEPS) + _HEADER_BYTES


def max_checkpoints_bytes(caps: Caps) -> int:
    """What all checkpoints of one manifest have at most, together, in a task with these caps.

    Where they do not say: 64 of the largest, which holds 2,048 of any network that is planned.
    """
    if caps.checkpoints_bytes is not None:
        return caps.checkpoints_bytes
    return min(_LARGEST_HELD * max_checkpoint_bytes(caps, 0), _MOST_BYTES)
