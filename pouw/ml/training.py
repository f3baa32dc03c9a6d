"""Training under a clock: ``python -m pouw.ml.training REQUEST.json``, a child of the miner.

It may be killed at any moment and started again with the same request: it goes on from the last
complete checkpoint, with the same order of data. SIGTERM, or the end of its parent, makes it write
a snapshot and end. With ``-`` for the request it imports everything, then waits for the request's
path on a line of its standard input, so that a miner loses no time of Phase 1 to start-up.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pouw.errors import PouwError, ProcessError
from pouw.hashing import sha256
from pouw.ml.checkpoint import CheckpointState
from pouw.ml.data import CaseFile, Image, Label, load_case, read_dataset, split_validation
from pouw.ml.device import (
    choose_device,
    describe_device,
    describe_software,
    make_repeatable,
    settle_imports,
)
from pouw.ml.inference import prepare, prepare_label
from pouw.ml.learner import Learner, learning_rate, warm_up
from pouw.ml.planning import PlanningPolicy, StepPlanner, budget_fraction_ppm
from pouw.ml.requests import EndReason, Finished, Progress, Snapshot, TrainingRequest
from pouw.ml.runfolder import RunFolder
from pouw.ml.sampling import PatchSampler, items_of
from pouw.ml.validation import ValidationCase, validate
from pouw.types import SCORE_ONE_PPM

_LOSS_MEMORY = 0.95
_VALIDATION_SHARE = 0.1
_LEAST_VALIDATION_MS = 500.0
_FIRST_WRITING_MS = 1_000
_LEAST_WRITING_MS = 500.0


def now_ms() -> float:
    """Unix time in milliseconds, which ``stop_at_ms`` is measured in."""
    return time.time() * 1000


class Training:
    """One run of one request, from its last checkpoint on."""

    def __init__(self, request: TrainingRequest, ended: Callable[[], bool]) -> None:
        self.request = request
        self._ended = ended
        self._folder = RunFolder(request.out)
        left_ms = max(0.0, request.stop_at_ms - now_ms())
        interval_ms = min(request.snapshot_seconds * 1000.0, left_ms / 2)
        self._validation_ms = max(interval_ms * _VALIDATION_SHARE, _LEAST_VALIDATION_MS)
        policy = PlanningPolicy(first_closing_ms=int(self._validation_ms) + _FIRST_WRITING_MS)
        self._planner = StepPlanner(request.stop_at_ms, policy)
        self._step = 0
        self._loss = 0.0
        self._schedule: list[int] = []
        self._started_at_ms = 0
        self._last: Snapshot | None = None
        self._last_sha256 = ""
        self._writing_ms = float(_FIRST_WRITING_MS)

    def run(self) -> Finished:
        """Train until the clock, ``max_steps`` or a signal ends it; idempotent once finished."""
        with self._folder.locked(self.request.stop_at_ms, now_ms):
            finished = self._folder.finished()
            if finished is None or finished.reason == "terminated":
                finished = self._train()
            return finished

    def _train(self) -> Finished:
        request = self.request
        device = choose_device(request.device)
        make_repeatable(device, request.threads)
        run = self._folder.begin(
            request, int(now_ms()), describe_software(), describe_device(device, request.threads)
        )
        self._started_at_ms = run.started_at_ms
        seed = bytes.fromhex(request.seed[2:])
        sampler, self._validation = self._load_data(seed)
        self._learner = Learner(request.spec, seed, request.settings, device)
        self._resume()
        reason = self._loop(sampler)
        if self._step > (self._last.step if self._last else 0):
            self._snapshot()
        finished = Finished(step=self._step, milliseconds=self._elapsed_ms(), reason=reason)
        self._folder.finish(finished)
        return finished

    def _load_data(self, seed: bytes) -> tuple[PatchSampler, list[ValidationCase]]:
        spec = self.request.spec
        train, held_out = split_validation(read_dataset(self.request.data).train)
        items = [
            item for file in train for item in items_of(*self._load(file), spec.inference.patch)
        ]
        validation = [ValidationCase(*self._load(file)) for file in held_out]
        return PatchSampler(items, spec.inference.patch, seed, self.request.settings), validation

    def _load(self, file: CaseFile) -> tuple[Image, Label]:
        spec = self.request.spec
        case = load_case(file, len(spec.labels))
        return prepare(case, spec), prepare_label(case, spec)

    def _resume(self) -> None:
        snapshots = self._folder.snapshots()
        if snapshots:
            self._last = snapshots[-1]
            checkpoint = self._folder.path / self._last.checkpoint
            state = self._learner.load(checkpoint)
            self._step, self._loss = state.step, state.loss_ppm / SCORE_ONE_PPM
            self._last_sha256 = sha256(checkpoint.read_bytes()).hex()

    def _loop(self, sampler: PatchSampler) -> EndReason:
        request = self.request
        while True:
            begun = now_ms()
            if self._ended():
                return "terminated"
            if request.max_steps is not None and self._step >= request.max_steps:
                return "max-steps"
            if not self._planner.allows_step(begun):
                return "deadline"
            if begun >= self._next_snapshot_ms() and self._planner.allows_snapshot(begun):
                self._snapshot()
                continue
            fraction_ppm = self._fraction_ppm(begun)
            images, labels = sampler.batch(self._step)
            loss = self._learner.step(images, labels, self._step, fraction_ppm)
            memory = min(_LOSS_MEMORY, self._step / (self._step + 1))
            self._loss = memory * self._loss + (1 - memory) * loss
            self._schedule.append(fraction_ppm)
            self._step += 1
            self._planner.observe_step(now_ms() - begun)
            self._note(fraction_ppm)

    def _fraction_ppm(self, now: float) -> int:
        """The share of the budget that is over: of the steps where they are given, else of time."""
        if self.request.max_steps is not None:
            return self._step * SCORE_ONE_PPM // self.request.max_steps
        return budget_fraction_ppm(now, self._started_at_ms, self._planner.training_ends_ms)

    def _elapsed_ms(self) -> int:
        return max(0, int(now_ms()) - self._started_at_ms)

    def _next_snapshot_ms(self) -> float:
        if self._last is None:
            # Nothing to snapshot before the first step.
            first = self._started_at_ms + self.request.first_snapshot_seconds * 1000
            return first if self._step else math.inf
        if self._step == self._last.step:
            return math.inf
        last = self._started_at_ms + self._last.milliseconds
        return last + self.request.snapshot_seconds * 1000

    def _note(self, fraction_ppm: int) -> None:
        rate = learning_rate(fraction_ppm, self.request.settings)
        progress = Progress(
            step=self._step,
            milliseconds=self._elapsed_ms(),
            train_loss_ppm=round(self._loss * SCORE_ONE_PPM),
            learning_rate_ppm=round(rate * SCORE_ONE_PPM),
        )
        self._folder.note(progress, time.monotonic())

    def _snapshot(self) -> None:
        """Validate, write the files, then the line that vouches for them."""
        begun = now_ms()
        latest = self.request.stop_at_ms - self._planner.policy.reserve_ms - self._writing_ms
        dice_ppm = validate(
            self._learner.model,
            self._validation,
            self.request.spec,
            min(begun + self._validation_ms, latest),
            now_ms,
        )
        if dice_ppm is None:
            dice_ppm = self._last.validation_dice_ppm if self._last else 0
        snapshot = Snapshot(
            step=self._step,
            milliseconds=self._elapsed_ms(),
            model=f"model-{self._step:08d}.safetensors",
            checkpoint=f"checkpoint-{self._step:08d}.safetensors",
            previous=self._last.checkpoint if self._last else None,
            train_loss_ppm=round(self._loss * SCORE_ONE_PPM),
            validation_dice_ppm=dice_ppm,
        )
        state = CheckpointState(
            step=self._step,
            loss_ppm=snapshot.train_loss_ppm,
            schedule_ppm=tuple(self._schedule),
            previous=snapshot.previous or "",
            previous_sha256=self._last_sha256,
        )
        folder, validated = self._folder.path, now_ms()
        digest = self._learner.save(folder / snapshot.model, folder / snapshot.checkpoint, state)
        self._folder.add(snapshot)
        self._last, self._last_sha256, self._schedule = snapshot, digest.hex(), []
        self._writing_ms = max(2 * (now_ms() - validated), _LEAST_WRITING_MS)
        self._planner.observe_closing(now_ms() - begun)


def main(arguments: list[str]) -> int:
    """Run the request that the one argument names; 0 when training ended in order."""
    if len(arguments) != 1:
        print("usage: python -m pouw.ml.training REQUEST.json | -", file=sys.stderr)
        return 2
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    parent = os.getppid()
    warm_up()
    settle_imports()
    path = arguments[0] if arguments[0] != "-" else sys.stdin.readline().strip()
    if not path:
        return 0
    try:
        request = TrainingRequest.parse(_read(Path(path)))
        Training(request, lambda: ended or os.getppid() != parent).run()
    except PouwError as error:
        print(f"training failed: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    return 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProcessError(f"cannot read the request {path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
