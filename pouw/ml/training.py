"""Training under a clock: ``python -m pouw.ml.training REQUEST.json``, a child of the miner.

It may be killed at any moment and started again with the same request: it goes on from the last
complete checkpoint, with the same order of data. SIGTERM, or the end of its parent, makes it write
a snapshot and end. With ``-`` for the request it imports everything, then reads lines from its
standard input, so that a miner loses no time of Phase 1 to start-up: ``tune PATH`` names a tuning
request, ``train PATH`` the request. Several processes train together where ``torchrun`` starts
them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pouw.errors import ConfigError, ModelError, PouwError, ProcessError
from pouw.files import atomic_file
from pouw.hashing import sha256
from pouw.ml.autotune import tune
from pouw.ml.checkpoint import CheckpointState, model_bytes
from pouw.ml.device import (
    describe_device,
    describe_software,
    make_repeatable,
    settle_imports,
    torch_device,
)
from pouw.ml.distributed import Team, gathered
from pouw.ml.feeding import BatchFeed, validation_cases
from pouw.ml.following import END, STEP, follow, make_feed, make_learner
from pouw.ml.halving import halves_well
from pouw.ml.learner import learning_rate, warm_up
from pouw.ml.planning import PlanningPolicy, StepPlanner, budget_fraction_ppm
from pouw.ml.requests import (
    EndReason,
    Finished,
    Precision,
    Progress,
    Run,
    Snapshot,
    TrainingRequest,
    TuningRequest,
)
from pouw.ml.room import room_of
from pouw.ml.runfolder import RunFolder
from pouw.ml.validation import Validation, Window, validate
from pouw.types import SCORE_ONE_PPM

_LOSS_MEMORY = 0.95
_VALIDATION_SHARE = 0.01
_LONGEST_VALIDATION_SHARE = 0.1
_LEAST_VALIDATION_MS = 500.0
_FIRST_WRITING_MS = 1_000
_LEAST_WRITING_MS = 500.0
_RESERVED = 2  # checkpoints that a manifest keeps room for: the last, and the one that insures it


def now_ms() -> float:
    """Unix time in milliseconds, which ``stop_at_ms`` is measured in."""
    return time.time() * 1000


class Training:
    """One run of one request, from its last checkpoint on; what rank 0 of a team does."""

    def __init__(
        self, request: TrainingRequest, ended: Callable[[], bool], team: Team | None = None
    ) -> None:
        self.request = request
        self._ended = ended
        self._team = team or Team()
        self._folder = RunFolder(request.out)
        left_ms = max(0.0, request.stop_at_ms - now_ms())
        self._interval_ms = min(request.snapshot_seconds * 1000.0, left_ms / 2)
        longest_ms = max(self._interval_ms * _LONGEST_VALIDATION_SHARE, _LEAST_VALIDATION_MS)
        self._longest_validation_ms = longest_ms
        policy = PlanningPolicy(first_closing_ms=int(longest_ms) + _FIRST_WRITING_MS)
        self._planner = StepPlanner(request.stop_at_ms, policy)
        self._step = 0
        self._loss = 0.0
        self._schedule: list[int] = []
        self._fraction_ppm = 0
        self._last: Snapshot | None = None
        self._last_sha256 = ""
        self._writing_ms = float(_FIRST_WRITING_MS)

    def run(self) -> Finished:
        """Train until the clock, ``max_steps`` or a signal ends it; idempotent once finished."""
        with self._folder.locked(self.request.stop_at_ms, now_ms):
            finished = self._folder.finished()
            if finished is None or finished.reason == "terminated":
                return self._train()
            self._team.agree_on_text("")
            return finished

    def _train(self) -> Finished:
        run = self._begin()
        self._started_at_ms = run.started_at_ms
        self._team.agree_on_text(run.line())
        request, engine = self.request, run.engine
        self._learner = make_learner(request, engine, self._team)
        feed = make_feed(request, engine, self._team)
        self._validation = validation_cases(request.spec, request.data, engine.threads)
        self._resume()
        try:
            reason = self._loop(feed)
        finally:
            feed.close()
        self._team.agree(END)
        # One that is only terminated goes on: it leaves room for the last.
        if self._since() and self._holds() > (reason == "terminated"):
            self._snapshot()
        finished = Finished(step=self._step, milliseconds=self._elapsed_ms(), reason=reason)
        self._folder.finish(finished)
        return finished

    def _begin(self) -> Run:
        wanted = self.request.engine
        if self._team.processes not in (1, wanted.processes):
            raise ConfigError(
                f"{self._team.processes} processes cannot train as {wanted.processes} do",
                hint="start one, or as many as the request names",
            )
        device = torch_device(wanted)
        engine = wanted.model_copy(update={"device": device.type})
        return self._folder.begin(
            self.request,
            engine,
            int(now_ms()),
            describe_software(),
            describe_device(device, engine.threads),
        )

    def _resume(self) -> None:
        snapshots = self._folder.snapshots()
        while snapshots and not self._take_up(snapshots[-1]):
            snapshots = self._folder.drop_last()
        spec = self.request.spec
        self._fits = model_bytes(self._learner.network) <= spec.caps.model_bytes
        self._room = room_of(spec, self._learner.network)
        for snapshot in snapshots:
            self._room.add(snapshot.checkpoint_bytes)
        self._team.agree_on_text(snapshots[-1].checkpoint if snapshots else "")

    def _take_up(self, snapshot: Snapshot) -> bool:
        """Go on from a snapshot, or say that its checkpoint is damaged, and change nothing."""
        checkpoint = self._folder.path / snapshot.checkpoint
        try:
            digest = _verified(checkpoint, snapshot.checkpoint_sha256)
            state = self._learner.load(checkpoint)
        except (ModelError, FileNotFoundError) as error:
            print(
                f"warning: {checkpoint.name} is damaged, training goes on from before it: {error}",
                file=sys.stderr,
            )
            return False
        self._last, self._last_sha256 = snapshot, digest
        self._step, self._loss = state.step, state.loss_ppm / SCORE_ONE_PPM
        self._fraction_ppm = state.schedule_ppm[-1] if state.schedule_ppm else 0
        return True

    def _loop(self, feed: BatchFeed) -> EndReason:
        request = self.request
        while True:
            begun = now_ms()
            if self._ended():
                return "terminated"
            if request.max_steps is not None and self._step >= request.max_steps:
                return "max-steps"
            if not self._planner.allows_step(begun):
                return "deadline"
            segment_full, due = self._segment_full(begun), self._due(begun)
            if segment_full or due:
                if self._planner.allows_snapshot(begun):
                    self._snapshot(validated=due)
                    continue
                if segment_full:
                    return "deadline"
            if not self._room.holds(self._since() + 1):
                return "full"
            fraction_ppm = self._advance(begun)
            self._team.agree(STEP, fraction_ppm)
            loss = self._learner.step(feed.batches(self._step), fraction_ppm)
            memory = min(_LOSS_MEMORY, self._step / (self._step + 1))
            self._loss = memory * self._loss + (1 - memory) * loss
            self._schedule.append(fraction_ppm)
            self._step += 1
            self._planner.observe_step(now_ms() - begun)
            self._note(fraction_ppm)

    def _advance(self, now: float) -> int:
        """The share of the budget that is over: of the steps where they are given, else of time.

        It never falls, whatever the clock or the estimates do.
        """
        if self.request.max_steps is not None:
            return self._step * SCORE_ONE_PPM // self.request.max_steps
        ends_ms = self._planner.training_ends_ms
        fraction_ppm = budget_fraction_ppm(now, self._started_at_ms, ends_ms)
        self._fraction_ppm = max(self._fraction_ppm, fraction_ppm)
        return self._fraction_ppm

    def _elapsed_ms(self) -> int:
        return max(0, int(now_ms()) - self._started_at_ms)

    def _since(self) -> int:
        """Steps since the last checkpoint."""
        return self._step - (self._last.step if self._last else 0)

    def _holds(self) -> int:
        """How many more checkpoints the manifest holds, one of now among them."""
        return self._room.holds(self._since())

    def _spaced(self, now: float) -> bool:
        """Whether a checkpoint now leaves enough for the rest of the time, or of the steps."""
        spare = self._holds() - _RESERVED
        if spare <= 0:
            return False
        most = self.request.max_steps
        if most is not None and self._since() * spare >= most - (self._step - self._since()):
            return True
        last_ms = self._last_ms()
        return (now - last_ms) * spare >= self.request.stop_at_ms - last_ms

    def _last_ms(self) -> float:
        """When the last checkpoint was written, or training began (Unix time)."""
        return self._started_at_ms + (self._last.milliseconds if self._last else 0)

    def _segment_full(self, now: float) -> bool:
        """Whether the task's provenance asks for a checkpoint now, and the manifest has room."""
        provenance = self.request.spec.provenance
        if provenance.policy != "replay" or self._since() < provenance.segment_steps:
            return False
        return self._spaced(now)

    def _due(self, now: float) -> bool:
        """Whether the clock asks for a snapshot now, and the manifest has room."""
        if not self._since():
            return False  # nothing to snapshot
        request, last_ms = self.request, self._last_ms()
        if self._last is None and self._holds() > _RESERVED:
            return now >= last_ms + request.first_snapshot_seconds * 1000
        insured = request.stop_at_ms - request.insurance_seconds * 1000
        if request.insurance_seconds and last_ms < insured <= now and self._holds() > 1:
            return True
        return now >= last_ms + request.snapshot_seconds * 1000 and self._spaced(now)

    def _note(self, fraction_ppm: int) -> None:
        rate = learning_rate(fraction_ppm, self.request.settings)
        elapsed = self._elapsed_ms()
        ends = self._planner.training_ends_ms
        if self.request.max_steps is not None:
            by_steps = self._started_at_ms + elapsed * self.request.max_steps / self._step
            ends = min(ends, by_steps)
        progress = Progress(
            step=self._step,
            milliseconds=elapsed,
            train_loss_ppm=round(self._loss * SCORE_ONE_PPM),
            learning_rate_ppm=round(rate * SCORE_ONE_PPM),
            fraction_ppm=fraction_ppm,
            ends_at_ms=round(ends),
        )
        self._folder.note(progress, time.monotonic())

    def _snapshot(self, *, validated: bool = True) -> None:
        """Validate, write the files, then the line that vouches for them."""
        begun = now_ms()
        window = self._window(begun)
        found = self._validate(window) if validated else None
        halved = found is not None and halves_well(
            self._learner.model, self._validation, self.request.spec, window
        )
        if found is None:
            before = self._last
            known = (before.validation_dice_ppm, before.validation_cases) if before else (0, 0)
            found = Validation(*known)
        folder, validated_at, validated_ms = self._folder.path, now_ms(), self._elapsed_ms()
        model, checkpoint = (
            folder / f"{kind}-{self._step:08d}.safetensors" for kind in ("model", "checkpoint")
        )
        dtype: Precision = "bfloat16" if halved or not self._fits else "float32"
        state = CheckpointState(
            step=self._step,
            loss_ppm=round(self._loss * SCORE_ONE_PPM),
            schedule_ppm=tuple(self._schedule),
            previous=self._last.checkpoint if self._last else "",
            previous_sha256=self._last_sha256,
        )
        digest = self._learner.save(model, checkpoint, state, dtype)
        snapshot = Snapshot(
            step=self._step,
            milliseconds=validated_ms,
            model=model.name,
            checkpoint=checkpoint.name,
            checkpoint_bytes=checkpoint.stat().st_size,
            previous=state.previous or None,
            train_loss_ppm=state.loss_ppm,
            validation_dice_ppm=found.dice_ppm,
            dtype=dtype,
            validation_cases=found.cases,
            checkpoint_sha256=digest.hex(),
        )
        self._folder.add(snapshot)
        self._room.add(snapshot.checkpoint_bytes)
        self._last, self._last_sha256, self._schedule = snapshot, digest.hex(), []
        self._writing_ms = max(2 * (now_ms() - validated_at), _LEAST_WRITING_MS)
        self._planner.observe_closing(now_ms() - begun)

    def _window(self, begun: float) -> Window:
        """When validation has to end, all of it: no later than is planned."""
        latest = self.request.stop_at_ms - self._planner.policy.reserve_ms - self._writing_ms
        enough = max(self._interval_ms * _VALIDATION_SHARE, _LEAST_VALIDATION_MS)
        return Window(
            enough_ms=begun + enough,
            until_ms=min(begun + self._longest_validation_ms, latest),
            clock_ms=now_ms,
        )

    def _validate(self, window: Window) -> Validation | None:
        """The validation Dice; one case at least, where the window has time for it."""
        return validate(self._learner.model, self._validation, self.request.spec, window)


def main(arguments: list[str]) -> int:
    """Do what the one argument names; 0 when training ended in order."""
    if len(arguments) != 1:
        print("usage: python -m pouw.ml.training REQUEST.json | -", file=sys.stderr)
        return 2
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    parent = os.getppid()
    warm_up()
    settle_imports()
    try:
        with gathered() as team:
            path = _awaited(arguments[0]) if team.leads else ""
            path = team.agree_on_text(path)
            if not path:
                return 0
            # Only now: what waits, or tries engines, has nothing to keep and ends at once.
            signal.signal(signal.SIGTERM, end)
            request = TrainingRequest.parse(_read(Path(path)))
            if team.leads:
                Training(request, lambda: ended or os.getppid() != parent, team).run()
            else:
                follow(request, team)
    except PouwError as error:
        print(f"training failed: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    return 0


def _awaited(argument: str) -> str:
    """The path of the training request; tunes first where that is asked for."""
    if argument != "-":
        return argument
    for line in sys.stdin:
        order, _, path = line.strip().partition(" ")
        if order == "train":
            return path
        if order == "tune":
            request = TuningRequest.parse(_read(Path(path)))
            make_repeatable(torch_device(request.engine), request.engine.threads)
            with atomic_file(request.out) as file:
                file.write(tune(request, now_ms).line().encode() + b"\n")
    return ""


def _verified(path: Path, written: str) -> str:
    """The file's sha-256 in hex; ModelError where it is not ``written`` (empty: unknown)."""
    digest = sha256(path.read_bytes()).hex()
    if written not in ("", digest):
        raise ModelError("it holds other bytes than were written")
    return digest


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProcessError(f"cannot read the request {path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
