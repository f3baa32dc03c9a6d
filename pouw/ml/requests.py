"""What roles hand to training and scoring processes, and what these answer: plain JSON records.

This module imports no torch, so that a role can write requests and read answers without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError

from pouw.documents import CaseCounts, Count, HexDigest, Part, Positive, Ppm, Remark, TaskSpec, Text
from pouw.errors import ProcessError

Loss = Annotated[int, Field(ge=-(2**53), le=2**53)]
EndReason = Literal["deadline", "max-steps", "full", "terminated"]
ScoringReason = Literal["score", "bound", "usable", "caps", "model", "data", "time", "local"]
PredictionFault = Literal["model", "data", "local"]
DeviceName = Literal["cpu", "cuda", "auto"]
Precision = Literal["float32", "bfloat16"]
MAX_PROCESSES: Final = 64

SNAPSHOTS_FILE = "snapshots.jsonl"
PROGRESS_FILE = "progress.jsonl"
RUN_FILE = "run.json"
ENGINE_FILE = "engine.json"
FINISHED_FILE = "finished.json"


class Record(Part):
    """A record on one line of JSON."""

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """The record in ``text``; ProcessError where it is not one."""
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "record"
            raise ProcessError(f"not a {cls.__name__}: {where}: {first['msg']}") from error

    def line(self) -> str:
        """The record as one line of JSON, without the line break."""
        return self.model_dump_json(by_alias=True)


class TrainingSettings(Record):
    """How a miner trains; his own choice, and part of what a stranger needs to repeat it.

    ``batch_size`` None: as many patches a step as hold about 40,000 pixels or voxels, at least one.
    The learning rate rises over ``warmup_ppm`` of the budget to ``learning_rate_ppm`` and falls to
    zero along a half cosine. ``foreground_ppm``: the share of patches centred on a foreground
    voxel. ``flips``: mirror patches along every axis at random. ``intensity_ppm``: the strength of
    random contrast, brightness, bias field and noise (0: none). ``ema_ppm``: decay per step of the
    averaged weights, which are the model (0: the trained weights themselves).
    """

    batch_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    learning_rate_ppm: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    weight_decay_ppm: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    warmup_ppm: Ppm = 20_000
    gradient_norm_ppm: Positive = 5_000_000
    foreground_ppm: Ppm = 333_333
    flips: bool = True
    intensity_ppm: Ppm = 200_000
    ema_ppm: Ppm = 990_000


class Engine(Record):
    """How the arithmetic of training is done: with data, seed and settings it fixes every bit.

    ``precision`` of forward and backward passes; weights, loss and optimiser are float32 always.
    ``channels_last``: the memory layout of images and weights. ``compiled``: by ``torch.compile``.
    ``threads`` of each of ``processes``, which train together on one batch each; no more of them
    than one machine repeats the work of.
    """

    device: DeviceName = "auto"
    precision: Precision = "float32"
    channels_last: bool = False
    compiled: bool = False
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    processes: Annotated[int, Field(ge=1, le=MAX_PROCESSES)] = 1


class TuningRequest(Record):
    """Asks a training process for the fastest correct engine, before there is data to train on.

    ``engine`` names device, threads and processes; the others are tried, ``compiled`` only where it
    is set. The choice is written to ``out`` by ``stop_at_ms`` (Unix time in milliseconds).
    """

    spec: TaskSpec
    settings: TrainingSettings = TrainingSettings()
    engine: Engine = Engine()
    out: Path
    stop_at_ms: Positive


class Trial(Record):
    """How fast a step was on one engine; None, and a fault, where it is out."""

    engine: Engine
    step_microseconds: Positive | None
    fault: Remark


class Tuned(Record):
    """The answer to a tuning request: the engine to train on, and what was tried, plain first."""

    engine: Engine
    trials: Annotated[tuple[Trial, ...], Field(min_length=1)]
    software: Text
    device: Text


class TrainingRequest(Record):
    """What ``python -m pouw.ml.training`` is asked for.

    ``data``: the opened training archive; ``out``: the private folder it writes to. The last
    snapshot is complete on disk before ``stop_at_ms`` (Unix time in milliseconds). ``max_steps``
    ends training after so many steps (None: only the clock does). ``insurance_seconds`` before
    ``stop_at_ms`` one more snapshot is due, to stand where the last one comes too late (0: none).
    """

    spec: TaskSpec
    data: Path
    out: Path
    seed: HexDigest
    stop_at_ms: Positive
    max_steps: Positive | None = None
    engine: Engine = Engine()
    first_snapshot_seconds: Positive = 20
    snapshot_seconds: Positive = 60
    insurance_seconds: Count = 0
    settings: TrainingSettings = TrainingSettings()


class Run(Record):
    """``out/run.json``: when training first began, how, and on what it runs now.

    ``engine`` names the device that "auto" became; it stays the same however often training begins.
    """

    started_at_ms: Positive
    request_digest: HexDigest
    software: Text
    device: Text
    engine: Engine


class Progress(Record):
    """A line of ``out/progress.jsonl``, at most two a second; a loss smoothed over steps.

    ``fraction_ppm`` of the budget is over, ``ends_at_ms`` (Unix time) is when the rest will be.
    """

    step: Count
    milliseconds: Count
    train_loss_ppm: Loss
    learning_rate_ppm: Ppm
    fraction_ppm: Ppm
    ends_at_ms: Positive


class Snapshot(Record):
    """A line of ``out/snapshots.jsonl``; its two files were complete before it was written.

    ``milliseconds`` since training first began; ``checkpoint`` and ``model`` are file names in
    ``out``, the model's weights in ``dtype``; ``previous`` names the checkpoint before, None for
    the first. Of the files only the last ``checkpoint`` is needed to go on. ``validation_cases``:
    of how many cases the Dice is the mean (0: was not noted). ``checkpoint_sha256``: of the
    checkpoint as it was written, in hex (empty: was not noted).
    """

    step: Count
    milliseconds: Count
    model: Text
    checkpoint: Text
    checkpoint_bytes: Positive
    previous: Text | None
    train_loss_ppm: Loss
    validation_dice_ppm: Ppm
    dtype: Precision = "float32"
    validation_cases: Count = 0
    checkpoint_sha256: str = ""


class Finished(Record):
    """``out/finished.json``: training ended in order.

    ``full``: the manifest of its task holds no checkpoint of more steps.
    ``terminated``: asked to end by a signal, or its miner is gone; the same request goes on from
    the last checkpoint.
    """

    step: Count
    milliseconds: Count
    reason: EndReason


class Share(Record):
    """A part of a test set, for one of several processes that score a model together.

    ``cases``: the names to score; ``of``: how many cases the whole set has; ``lost_ppb``: what
    other processes lost already, in cases of Dice 0, times 10^9, rounded down.
    """

    cases: Annotated[tuple[Text, ...], Field(min_length=1)]
    of: Positive
    lost_ppb: Count = 0


class ScoringRequest(Record):
    """One model to score on the opened test archive ``data``.

    ``model`` None: only look whether the task can be judged on, whatever the model: whether its
    network runs, and every case (of the ``share``) can be read and prepared; then it is "usable".
    ``predictions``: a folder for one label map a case (``NAME.npy``), for pictures. Past
    ``stop_at_ms`` the answer is "time". ``claim_ppm``: stop, with the answer "bound", as soon as
    this score cannot be reached any more (None: score every case). ``share``: None for all cases.
    """

    id: Text
    spec: TaskSpec
    data: Path
    model: Path | None
    predictions: Path | None = None
    stop_at_ms: Positive | None = None
    claim_ppm: Ppm | None = None
    share: Share | None = None


class ScoringAnswer(Record):
    """What scoring found.

    ``reason``: "score" (``score_ppm`` is set, unless only a share was asked for); "bound": the
    claim is out of reach, as ``cases`` and what others lost prove (``best_ppm``: what can still be
    reached; the counts of the last case may take the part of it that was not looked at as perfect);
    "caps" and "model": the model is at fault and has no score; "usable": there was none to score,
    and nothing is wrong with the task; "data" (the task's network or test set cannot be used),
    "time" (or cancelled) and "local" (a wrong request, a full disk, too little memory): no fault of
    the model, nothing may be concluded about it.
    """

    id: Text
    score_ppm: Ppm | None
    cases: tuple[CaseCounts, ...]
    reason: ScoringReason
    detail: str
    milliseconds: Count
    software: Text
    device: Text
    best_ppm: Ppm | None = None


class Unlabelled(Record):
    """A case without labels: its name, and a file for each channel or one for all."""

    name: str
    images: Annotated[tuple[Path, ...], Field(min_length=1)]


class PredictionRequest(Record):
    """What ``python -m pouw.ml.prediction`` is asked for: label maps of ``cases`` by ``model``.

    The first one's is written to ``out/0.nii.gz``, and so on; each appears whole.
    """

    spec: TaskSpec
    model: Path
    cases: tuple[Unlabelled, ...]
    out: Path


class PredictionAnswer(Record):
    """How far prediction is: ``done`` label maps are written, and ``part_ppm`` of the next.

    At 1,000,000 that is written too. A ``fault`` is the last answer: of the model, of an image
    ("data"), or of this machine ("local").
    """

    done: Count
    part_ppm: Ppm
    fault: PredictionFault | None = None
    detail: str = ""
    hint: str | None = None
