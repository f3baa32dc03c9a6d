"""The training half of a miner: sealed data in, snapshots out, all in its private home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pouw.documents import TaskSpec
from pouw.hashing import round_seed
from pouw.ml.requests import DeviceName, Snapshot, TrainingRequest
from pouw.roles.base import Errands, Setup
from pouw.roles.content import fetch_archive, fetch_spec, open_archive
from pouw.roles.processes import TrainingProcess, read_finished, read_snapshots
from pouw.roles.view import View
from pouw.types import Address, Deadlines, RoundNumber, Task


@dataclass(frozen=True, slots=True)
class MinerOptions:
    """How a miner spends its machine.

    ``margin_ppm`` is taken off the measured score for noise between machines: a claim is a
    guarantee. ``commit_margin_seconds`` before t1 the last snapshot is complete, so that its
    commitment is on chain in time. ``training_seconds`` and ``max_steps`` end training earlier.
    """

    threads: int = 1
    device: DeviceName = "auto"
    training_seconds: int | None = None
    max_steps: int | None = None
    margin_ppm: int = 200
    commit_margin_seconds: int = 30
    first_snapshot_seconds: int = 20
    snapshot_seconds: int = 120


class Trainer:
    """Supervises one training process; what that one wrote is taken up after a kill."""

    def __init__(self, setup: Setup, options: MinerOptions, errands: Errands) -> None:
        self._setup = setup
        self._options = options
        self._errands = errands
        self._address: Address = setup.arena.sender.address
        self._process: TrainingProcess | None = None
        self._specs: dict[bytes, TaskSpec] = {}

    def out(self, number: RoundNumber) -> Path:
        """Where the training of a round writes to."""
        return self._setup.home / "rounds" / str(number)

    def snapshots(self, number: RoundNumber) -> list[Snapshot]:
        """The complete snapshots of a round, oldest first."""
        return read_snapshots(self.out(number))

    def spec(self, task: Task) -> TaskSpec:
        """The task's spec, fetched once."""
        if task.spec_digest not in self._specs:
            self._specs[task.spec_digest] = fetch_spec(self._setup.store, task.spec_digest)
        return self._specs[task.spec_digest]

    def prefetch(self, task: Task) -> None:
        """Fetch the sealed archives and warm up training before the key is out."""
        folder = self._folder(task)

        def fetch() -> None:
            spec = self.spec(task)
            for kind, archive in (("train", spec.train), ("test", spec.test)):
                if not (folder / kind).exists():
                    fetch_archive(self._setup.store, archive, folder)

        self._errands.prepare(f"fetch the data of task {task.task_id}", fetch)
        self._warm()

    def train(self, view: View, data_key: bytes | None) -> None:
        """Open the data and train until shortly before t1; does nothing that was done before."""
        live, task, at = view.live, view.task, view.deadlines
        if live is None or task is None or at is None or data_key is None:
            return
        out = self.out(live.number)
        finished = read_finished(out)
        if finished is not None and finished.reason != "terminated":
            return
        process = self._warm()
        data = self.opened(task, "train", data_key)
        if data is not None and not process.begun:
            process.begin(self._request(live.number, task, at, view.now, data_key, data))

    def opened(self, task: Task, kind: Literal["train", "test"], key: bytes) -> Path | None:
        """The opened archive; None while it is being opened, which this call asks for."""
        folder = self._folder(task)
        if (folder / kind).exists():
            return folder / kind

        def open_it() -> None:
            open_archive(self._setup.store, self.spec(task), kind, key, task.key_hash, folder)

        self._errands.prepare(f"open the {kind} archive of task {task.task_id}", open_it)
        return None

    def ended(self, view: View) -> bool:
        """Whether the live round's training has written its last snapshot, or must have by now."""
        live, at = view.live, view.deadlines
        if live is None or at is None:
            return False
        finished = read_finished(self.out(live.number))
        over = view.now >= at.t1 - self._options.commit_margin_seconds
        return over or (finished is not None and finished.reason != "terminated")

    def end_after_phase1(self, view: View) -> None:
        """End a training that nothing more can come of."""
        at = view.deadlines
        if self._process and self._process.begun and (at is None or view.now >= at.t1):
            self.end()

    def end(self) -> None:
        """End the process; its snapshots stay."""
        if self._process:
            self._process.end()
            self._process = None

    def _folder(self, task: Task) -> Path:
        return self._setup.home / "tasks" / str(task.task_id)

    def _warm(self) -> TrainingProcess:
        if self._process is not None and not self._process.alive:
            failure = self._process.failure()
            if failure:
                self._setup.warn(failure)
            self._process = None
        if self._process is None:
            self._process = TrainingProcess(
                self._setup.home / "training.log", self._options.threads
            )
        return self._process

    def _request(
        self,
        number: RoundNumber,
        task: Task,
        at: Deadlines,
        now: int,
        data_key: bytes,
        data: Path,
    ) -> TrainingRequest:
        """The request of a round: written once, so that a restart asks for the same."""
        out, options = self.out(number), self._options
        saved = out / "request.json"
        if saved.exists():
            return TrainingRequest.parse(saved.read_text())
        stop = at.t1 - options.commit_margin_seconds
        if options.training_seconds is not None:
            stop = min(stop, now + options.training_seconds)
        return TrainingRequest(
            spec=self.spec(task),
            data=data,
            out=out,
            seed="0x" + round_seed(data_key, number, self._address).hex(),
            stop_at_ms=stop * 1000,
            max_steps=options.max_steps,
            threads=options.threads,
            device=options.device,
            first_snapshot_seconds=options.first_snapshot_seconds,
            snapshot_seconds=options.snapshot_seconds,
        )
