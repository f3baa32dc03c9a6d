"""The training half of a miner: sealed data in, snapshots out, all in its private home."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pouw.errors import ModelError
from pouw.hashing import round_seed
from pouw.ml.arguments import check_trainable
from pouw.ml.planning import block_seconds, insurance_seconds, last_call_seconds
from pouw.ml.requests import (
    ENGINE_FILE,
    DeviceName,
    Engine,
    Snapshot,
    TrainingRequest,
    TuningRequest,
)
from pouw.parallel import usable_memory_bytes
from pouw.roles.backoff import Backoff
from pouw.roles.base import Errands, Setup
from pouw.roles.processes import (
    TrainingProcess,
    read_finished,
    read_run,
    read_snapshots,
    read_tuned,
)
from pouw.roles.rounds import folder_of
from pouw.roles.taskdata import TaskData
from pouw.roles.view import View
from pouw.types import Address, Deadlines, RoundNumber, Task, TaskId

TaskKey = tuple[TaskId, bytes]

_MOST_TRIALS = 2  # of one task: a crash may be the machine's, two are the trial's
_TIMED_BLOCKS = 20
_USUAL_BLOCK_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class MinerOptions:
    """How a miner spends its machine.

    ``margin_ppm`` is taken off the measured score for noise between machines: a claim is a
    guarantee (the default follows from benchmarks/score_noise.py). ``commit_margin_seconds`` before
    t1 the last snapshot is complete, so that its commitment is on chain in time (None: as the time
    between blocks asks for). ``training_seconds`` and ``max_steps`` end training earlier.
    ``processes`` train together, one a GPU, with ``threads`` each. ``trial``: choose the fastest
    correct arithmetic before Phase 1, ``compile``d ones included.
    """

    threads: int = 1
    processes: int = 1
    device: DeviceName = "auto"
    trial: bool = True
    compile: bool = False
    training_seconds: int | None = None
    max_steps: int | None = None
    margin_ppm: int = 100
    commit_margin_seconds: int | None = None
    first_snapshot_seconds: int = 20
    snapshot_seconds: int = 120


class Trainer:
    """Supervises one training process; what that one wrote is taken up after a kill.

    ``data``: what the tasks are trained and measured on.
    """

    def __init__(self, setup: Setup, options: MinerOptions, errands: Errands) -> None:
        self._setup = setup
        self._options = options
        self._errands = errands
        self.data = TaskData(setup, errands)
        self._address: Address = setup.arena.sender.address
        self._process: TrainingProcess | None = None
        self._for: TaskKey | None = None
        self._trouble = Backoff()
        self._trainable: dict[TaskKey, bool] = {}
        self._trials: Counter[TaskKey] = Counter()
        self._block_seconds: float | None = None

    def out(self, number: RoundNumber) -> Path:
        """Where the training of a round writes to."""
        return folder_of(self._setup.home, number)

    def snapshots(self, number: RoundNumber) -> list[Snapshot]:
        """The complete snapshots of a round, oldest first."""
        return read_snapshots(self.out(number))

    def prefetch(self, task: Task, opens: int) -> None:
        """Fetch the sealed archives and warm up training before the key is out, at ``opens``."""
        self.data.fetch(task)
        self._learn_block_time()
        if self._in_vain(task):
            return
        process = self._warm(task)
        spec = self.data.known_spec(task)
        # Late, only the first engine would be tried, while Phase 1 may have begun.
        in_time = self._options.trial and time.time() < opens
        if in_time and spec is not None and process is not None:
            tuned = self._tuned(task)
            often = self._trials[_key(task)] == _MOST_TRIALS
            if not (tuned.exists() or process.tuning or often):
                self._trials[_key(task)] += 1
                process.tune(
                    TuningRequest(
                        spec=spec,
                        engine=self._engine(compiled=self._options.compile),
                        out=tuned,
                        stop_at_ms=opens * 1000,
                    )
                )

    def train(self, view: View, data_key: bytes | None) -> None:
        """Open the data and train until shortly before t1; does nothing that was done before."""
        live, task, at = view.live, view.task, view.deadlines
        if live is None or task is None or at is None or data_key is None:
            return
        self._time_blocks()
        out = self.out(live.number)
        finished = read_finished(out)
        if finished is not None and finished.reason != "terminated":
            self.data.fetch(task)  # it may have finished before a restart
            return
        self._learn_block_time()
        if self._in_vain(task):
            return
        process = self._warm(task)
        data = self.data.opened(task, "train", data_key)
        if data is not None:
            self.data.fetch(task)  # the test set's archive, if it is not here yet
        if data is not None and process is not None and not process.begun:
            process.begin(self._request(live.number, task, at, view, data_key, data))

    def ended(self, view: View) -> bool:
        """Whether the latest snapshot is to be committed, however little it has trained since.

        It is the last of the live round's training, or the one that insures it, or time runs out.
        """
        live, at = view.live, view.deadlines
        if live is None or at is None:
            return False
        out = self.out(live.number)
        finished, run, snapshots = read_finished(out), read_run(out), read_snapshots(out)
        if finished is not None and finished.reason != "terminated":
            return True
        last_call, insurance = at.t1 - self._last_call(at), self._insurance()
        insured = last_call - insurance
        # Halfway: the snapshot that insures the last one is here by now, unless training died.
        if view.now >= last_call - insurance / 2:
            return True
        if run is None or not snapshots:
            return False
        taken_ms = run.started_at_ms + snapshots[-1].milliseconds
        return taken_ms / 1000 + view.behind >= insured

    def _learn_block_time(self) -> None:
        if self._block_seconds is None:
            self._errands.prepare("time the blocks", self._time_blocks)

    def _time_blocks(self) -> None:
        endpoint = self._setup.arena.endpoint
        latest = endpoint.block_number()
        numbers = range(max(0, latest - _TIMED_BLOCKS), latest + 1)
        self._block_seconds = block_seconds([endpoint.timestamp(number) for number in numbers])

    def _last_call(self, at: Deadlines) -> int:
        """Seconds before t1 at which the last snapshot has to be complete."""
        if self._options.commit_margin_seconds is not None:
            return self._options.commit_margin_seconds
        phase1 = self._setup.arena.parameters().phase1
        return min(last_call_seconds(self._between_blocks()), max(1, phase1 // 10))

    def _insurance(self) -> int:
        return insurance_seconds(min(self._between_blocks(), _USUAL_BLOCK_SECONDS))

    def _between_blocks(self) -> float:
        """Seconds; hours where a chain that mines only what it is sent had nothing to do."""
        return _USUAL_BLOCK_SECONDS if self._block_seconds is None else self._block_seconds

    def _engine(self, *, compiled: bool = False) -> Engine:
        options = self._options
        return Engine(
            device=options.device,
            compiled=compiled,
            threads=options.threads,
            processes=options.processes,
        )

    def _tuned(self, task: Task) -> Path:
        return self.data.folder(task) / ENGINE_FILE

    def follow(self, view: View) -> None:
        """End the process where it works for another task than the one of now, or the next.

        That one was dropped, its Phase 1 is over, or a reorganisation selected another.
        """
        at = view.deadlines
        wanted = view.task if at is not None and view.contract_now < at.t1 else view.selected
        if wanted is None or self._for not in (None, _key(wanted)):
            self.end()

    def end(self) -> None:
        """End the process; its snapshots stay."""
        if self._process:
            self._process.end()
        self._process = self._for = None

    def _in_vain(self, task: Task) -> bool:
        """Whether no training of the task, here, can come to a model that counts; says so once."""
        key, spec = _key(task), self.data.known_spec(task)
        if spec is None:
            return False
        if key not in self._trainable:
            self._trainable[key] = True
            try:
                check_trainable(spec, usable_memory_bytes())
            except ModelError as error:
                self._trainable[key] = False
                self._setup.warn(f"does not train task {task.task_id}: {error}")
        return not self._trainable[key]

    def _warm(self, task: Task) -> TrainingProcess | None:
        """The process for this task; None for a while after it failed."""
        if self._for not in (None, _key(task)):
            self.end()
            self._trouble = Backoff()
        if self._process is not None:
            for text in self._process.warnings():
                self._setup.warn(text)
            failure = self._process.failure()
            if failure:
                self._setup.warn(failure)
                self._trouble.fail()
            if not self._process.alive:
                self.end()
        if self._process is None and self._trouble.over:
            self._process = TrainingProcess(
                self._setup.home / "training.log", self._options.threads, self._options.processes
            )
            self._for = _key(task)
        return self._process

    def _request(
        self,
        number: RoundNumber,
        task: Task,
        at: Deadlines,
        view: View,
        data_key: bytes,
        data: Path,
    ) -> TrainingRequest:
        """The request of a round: written once, so that a restart asks for the same.

        Its folders are those of now: the home may have been moved, or be named from elsewhere.
        """
        out, options = self.out(number), self._options
        saved = out / "request.json"
        if saved.exists():
            kept = TrainingRequest.parse(saved.read_text())
            return kept.model_copy(update={"data": data, "out": out})
        stop = at.t1 - self._last_call(at)
        tuned = read_tuned(self._tuned(task)) if options.trial else None
        if options.training_seconds is not None:
            stop = min(stop, view.now + options.training_seconds)
        return TrainingRequest(
            spec=self.data.spec(task),
            data=data,
            out=out,
            seed="0x" + round_seed(data_key, number, self._address).hex(),
            # The child looks at this machine's clock, which may not be the chain's.
            stop_at_ms=(stop - view.behind) * 1000,
            max_steps=options.max_steps,
            engine=tuned.engine if tuned else self._engine(),
            first_snapshot_seconds=options.first_snapshot_seconds,
            snapshot_seconds=options.snapshot_seconds,
            insurance_seconds=self._insurance(),
        )


def _key(task: Task) -> TaskKey:
    """What tells it from all others: after a reorganisation the id may be another task's."""
    return task.task_id, task.spec_digest
