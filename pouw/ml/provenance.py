"""Was the model trained? ``python -m pouw.ml.provenance``, a child of whoever asks (paper, 4.3).

It reads one ``Question`` a line from standard input and writes one ``Answer`` a line to standard
output. A link is checked by its bytes alone. A segment is trained again, from one checkpoint to the
next, on the data, order and schedule that round, miner, step and checkpoint fix, and its end is
compared with the claimed one: bit by bit on the same software and hardware, else by a bound per
layer. Files and settings are a stranger's; whatever they hold ends in an answer.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TextIO

import torch
from pydantic import ValidationError
from torch import nn

from pouw.documents import Caps, SegmentReplay, TaskSpec, remark
from pouw.errors import ConfigError, DataError, ModelError, PouwError, ProcessError
from pouw.hashing import sha256
from pouw.ml.checkpoint import CheckpointState, floating_state, load_model, read_checkpoint
from pouw.ml.deviation import (
    BOUND_STEPS,
    Deviation,
    State,
    deviation,
    deviation_bound_ppb,
    is_as_far,
    is_possible,
)
from pouw.ml.device import (
    describe_device,
    describe_software,
    make_repeatable,
    settle_imports,
    torch_device,
)
from pouw.ml.feeding import training_sampler
from pouw.ml.learner import Learner, warm_up
from pouw.ml.networks import activation_bytes, build
from pouw.ml.replays import (
    MAX_SEGMENT_STEPS,
    Answer,
    Link,
    LinkAnswer,
    LinkRequest,
    Question,
    ReplayAnswer,
    ReplayRequest,
    max_checkpoint_bytes,
)
from pouw.ml.requests import Engine, TrainingSettings
from pouw.ml.sampling import PatchSampler
from pouw.ml.sandbox import confine, exit_status, memory_limit

Outcome = Literal["exact", "close", "unlike", "undecided", "unusable"]

_TRAINING_STATES = 16  # times a model's size: weights, gradients, moments, average, copies
_LEAST_BYTES = 4 << 30


class _Undecided(PouwError):
    """This machine cannot tell: no time is left, or it cannot repeat what the miner's did."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment that can be trained again; ``engine`` is the one that does."""

    claimed: State
    schedule_ppm: tuple[int, ...]
    engine: Engine
    settings: TrainingSettings
    same_profile: bool


@dataclass(frozen=True, slots=True)
class _Finding:
    outcome: Outcome
    detail: str = ""
    deviation: Deviation | None = None


def check_link(request: LinkRequest) -> LinkAnswer:
    """Whether the checkpoint is linked to the one before, and the last one's average the model.

    MemoryError, RuntimeError (torch's word for it) or OSError where this machine cannot read it or
    has not the memory, which is no fault of the checkpoint.
    """
    link, spec = request.link, request.spec
    try:
        tensors, state = _read_link(link, _network(spec), spec.caps)
        if state.previous_sha256 != link.previous_sha256:
            fault = "it does not name the checkpoint before by its sha-256"
        elif not is_possible(tensors):
            fault = "no gradients can have left AdamW's moments as they are"
        elif request.model is not None and not _is_average(request.model, tensors, spec):
            fault = "the model is not the average of the last checkpoint"
        else:
            digest = sha256(link.path.read_bytes()).hex()
            return LinkAnswer(id=request.id, fault=None, sha256=digest)
    except ModelError as error:
        fault = str(error)
    fault = remark(f"the checkpoint of step {link.step}: {fault}")
    return LinkAnswer(id=request.id, fault=fault, sha256="")


def replay(request: ReplayRequest) -> ReplayAnswer:
    """Train the request's segment again and compare; whatever is wrong is in the answer."""
    started = time.monotonic()
    same_profile, device = False, "unknown"
    try:
        segment = _prepare(request)
        same_profile = segment.same_profile
        device = describe_device(torch_device(segment.engine), segment.engine.threads)
        sampler = _sampler(request, segment)
        with memory_limit(_memory(request.spec)):
            finding = _compare(request, segment, sampler)
    except _Undecided as error:
        finding = _Finding("undecided", str(error))
    except (DataError, ConfigError, OSError) as error:
        finding = _Finding("undecided", f"not for a fault of the miner: {error}")
    except (ModelError, RuntimeError, ValueError, MemoryError) as error:
        finding = _Finding("unusable", str(error) or "it does not fit into the memory allowed")
    return ReplayAnswer(
        id=request.id,
        segment=SegmentReplay(
            begin_step=request.begin_step,
            end_step=request.end_step,
            outcome=finding.outcome,
            layer=finding.deviation.layer if finding.deviation else "",
            deviation_ppb=finding.deviation.ppb if finding.deviation else None,
            detail=remark(finding.detail),
            milliseconds=int((time.monotonic() - started) * 1000),
        ),
        same_profile=same_profile,
        software=describe_software(),
        device=device,
    )


def _prepare(request: ReplayRequest) -> _Segment:
    """Read and check all that is a stranger's before anything is built from it."""
    recipe, spec = request.recipe, request.spec
    try:
        settings = TrainingSettings.model_validate(recipe.settings, strict=True)
        used = Engine.model_validate(recipe.engine, strict=True)
    except ValidationError as error:
        raise ModelError(f"the manifest's recipe cannot be followed: {error}") from error
    if used.device == "auto":
        raise ModelError("the manifest's recipe names no device")
    if used.device == "cuda" and not torch.cuda.is_available():
        raise _Undecided("trained on a CUDA device, and there is none here")
    # A compiler may not be started from here; more threads than cores would only be slow.
    threads = min(used.threads, os.cpu_count() or 1)
    engine = used.model_copy(update={"compiled": False, "threads": threads})
    device = describe_device(torch_device(engine), engine.threads)
    same = engine == used and (request.software, request.device) == (describe_software(), device)
    # Not every operation on a CUDA device has a deterministic form.
    same = same and engine.device == "cpu"
    steps, most = request.end_step - request.begin_step, spec.provenance.segment_steps
    if steps > most and not same:
        raise _Undecided(f"{steps} steps, the task asks for {most}; this is another machine")
    network = _network(spec)
    link = Link(
        path=request.end, begin_step=request.begin_step, step=request.end_step, previous_sha256=""
    )
    claimed, state = _read_link(link, network, spec.caps)
    return _Segment(claimed, state.schedule_ppm, engine, settings, same)


def _sampler(request: ReplayRequest, segment: _Segment) -> PatchSampler:
    """The batches; ModelError where training on one of them would pass the memory allowed."""
    spec, seed = request.spec, bytes.fromhex(request.seed[2:])
    threads = segment.engine.threads
    try:
        sampler = training_sampler(spec, request.data, seed, segment.settings, threads)
    except MemoryError as error:
        raise _Undecided("the training data do not fit into memory here") from error
    one = activation_bytes(spec.network, len(spec.channels), len(spec.labels), spec.inference.patch)
    if sampler.batch_size * one > _memory(spec):
        raise ModelError(
            f"a step takes {sampler.batch_size * one} bytes of memory, {_memory(spec)} allowed"
        )
    return sampler


def _train(request: ReplayRequest, segment: _Segment, sampler: PatchSampler) -> tuple[State, State]:
    """The segment's begin and the end that training it again comes to."""
    spec, seed, engine = request.spec, bytes.fromhex(request.seed[2:]), segment.engine
    make_repeatable(torch_device(engine), engine.threads)
    network = _network(spec)
    learner = Learner(spec, seed, segment.settings, engine)
    begin: State = {
        f"{kind}/{name}": tensor.detach().to("cpu", copy=True)
        for kind, module in (("network", learner.network), ("average", learner.model))
        for name, tensor in floating_state(module).items()
    }
    if request.begin is not None:
        limit = max_checkpoint_bytes(spec.caps, request.begin_step)
        begin, state = read_checkpoint(request.begin, network, limit)
        if state.step != request.begin_step:
            raise ModelError(f"the segment begins at step {state.step}, not {request.begin_step}")
        learner.load(request.begin)
    for done, fraction_ppm in enumerate(segment.schedule_ppm):
        if request.stop_at_ms is not None and time.time() * 1000 >= request.stop_at_ms:
            raise _Undecided(f"{done} of {len(segment.schedule_ppm)} steps were done in time")
        step = request.begin_step + done
        batches = [sampler.batch(step, rank) for rank in range(engine.processes)]
        learner.step(batches, fraction_ppm)
    with tempfile.TemporaryDirectory(dir=request.end.parent) as folder:
        # Through the file, as the miner's end came here.
        file = Path(folder) / "checkpoint"
        learner.save(Path(folder) / "model", file, CheckpointState(request.end_step, 0, (), "", ""))
        end, _ = read_checkpoint(file, network)
    return begin, end


def _compare(request: ReplayRequest, segment: _Segment, sampler: PatchSampler) -> _Finding:
    begin, end = _train(request, segment, sampler)
    found = deviation(begin, end, segment.claimed)
    if found.exact:
        return _Finding("exact", deviation=found)
    if segment.same_profile:
        return _Finding("unlike", "on an equal machine every bit has to agree", found)
    steps = len(segment.schedule_ppm)
    bound = deviation_bound_ppb(steps)
    if found.ppb <= bound:
        return _Finding("close", f"at most {bound} ppb on another machine", found)
    if steps > BOUND_STEPS:
        return _Finding("undecided", f"{steps} steps are too many for another machine", found)
    layout = {"channels_last": not segment.engine.channels_last}
    other = replace(segment, engine=segment.engine.model_copy(update=layout))
    own = deviation(begin, end, _train(request, other, sampler)[1])
    if is_as_far(found.ppb, own.ppb):
        apart = f"in another memory layout this machine itself ends {own.ppb} ppb apart"
        return _Finding("undecided", f"more than {bound} ppb, but {apart}", found)
    return _Finding("unlike", f"at most {bound} ppb on another machine", found)


def _network(spec: TaskSpec) -> nn.Module:
    return build(
        spec.network, len(spec.channels), len(spec.labels), parameters_cap=spec.caps.parameters
    )


def _memory(spec: TaskSpec) -> int:
    caps = spec.caps
    return _LEAST_BYTES + _TRAINING_STATES * (caps.model_bytes + caps.activation_bytes)


def _read_link(
    link: Link, network: nn.Module, caps: Caps
) -> tuple[dict[str, torch.Tensor], CheckpointState]:
    steps = link.step - link.begin_step
    if not 0 < steps <= MAX_SEGMENT_STEPS:
        raise ModelError(f"{steps} steps since the checkpoint before")
    tensors, state = read_checkpoint(link.path, network, max_checkpoint_bytes(caps, steps))
    if (state.step, len(state.schedule_ppm)) != (link.step, steps):
        raise ModelError(
            f"it says step {state.step}, {len(state.schedule_ppm)} after the one before, "
            f"not {link.step} and {steps}"
        )
    return tensors, state


def _is_average(path: Path, tensors: State, spec: TaskSpec) -> bool:
    """Whether the model is the checkpoint's average, in float32 or rounded to bfloat16."""
    model = load_model(path, spec.network, len(spec.channels), len(spec.labels), spec.caps)
    weights = floating_state(model)
    return any(
        all(
            torch.equal(one, tensors[f"average/{name}"].to(dtype).to(torch.float32))
            for name, one in weights.items()
        )
        for dtype in (torch.float32, torch.bfloat16)
    )


def serve(lines: TextIO, answers: TextIO) -> None:
    """Answer every question of ``lines`` until it ends; ProcessError where one is none."""
    for line in lines:
        ask = Question.parse(line).ask
        answer = check_link(ask) if isinstance(ask, LinkRequest) else replay(ask)
        answers.write(Answer(answer=answer).line() + "\n")
        answers.flush()


def main() -> int:
    """Serve questions from standard input until it ends."""
    warm_up()
    settle_imports()
    # Whatever a library prints from here on goes to standard error.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        confine()
        try:
            return exit_status(lambda: serve(sys.stdin, answers))
        except ProcessError as error:
            print(f"provenance ends: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
