"""Child processes that a role supervises: training and scoring.

Both import torch in their own process, so a role starts fast, stays light, and outlives a crash.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from pouw.errors import ProcessError
from pouw.files import atomic_file
from pouw.ml.requests import (
    FINISHED_FILE,
    RUN_FILE,
    SNAPSHOTS_FILE,
    Finished,
    Run,
    ScoringAnswer,
    ScoringRequest,
    Snapshot,
    TrainingRequest,
    Tuned,
    TuningRequest,
)
from pouw.ml.sandbox import blames_the_work, cause_of_death

MODEL_SECONDS = 3_600.0
WARNING = "warning: "
_END_SECONDS = 5.0
# glibc gives large pieces back to the system when they are freed, and a step of training takes the
# same thousands of pages anew each time. These keep them, in large pages where the kernel has some.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
_LOG_TAIL_BYTES = 2_000


class Crashed(ProcessError):
    """A process ended of what it worked on, as it would on any machine.

    Whatever else ends one, or keeps it from answering, says nothing about the work.
    """


class TrainingProcess:
    """``python -m pouw.ml.training`` on one request, warmed up before there is one.

    The child writes snapshots to ``request.out``; they outlive it, and the same request goes on
    from the last one. Several ``processes`` train together, under ``torchrun``.
    """

    def __init__(self, log: Path, threads: int, processes: int = 1) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._out: Path | None = None
        self._tuning: TuningRequest | None = None
        with log.open("ab") as errors:
            self._told = errors.tell()
            self._child = subprocess.Popen(
                [sys.executable, "-m", *_launcher(processes), "pouw.ml.training", "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
                env=child_environment(threads),
            )

    def tune(self, request: TuningRequest) -> None:
        """Have the child choose its engine now, and compile; once."""
        if self._tuning is None:
            self._tuning = request
            path = request.out.with_suffix(".request.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(request.line() + "\n")
            tell(self._child.stdin, f"tune {path}\n")

    def begin(self, request: TrainingRequest) -> None:
        """Hand the request to the child, which is warm by now; ``out`` keeps it."""
        path, text = request.out / "request.json", request.line().encode() + b"\n"
        if not path.exists() or path.read_bytes() != text:
            with atomic_file(path) as file:
                file.write(text)
        self._out = request.out
        tell(self._child.stdin, f"train {path}\n")

    @property
    def tuning(self) -> bool:
        """Whether the child was asked for a trial, which may be over."""
        return self._tuning is not None

    @property
    def begun(self) -> bool:
        """Whether there is a request."""
        return self._out is not None

    @property
    def pid(self) -> int:
        """The child's process id; with several processes, that of ``torchrun``."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child.poll() is None

    def warnings(self) -> list[str]:
        """What the child warned of since the last call: lines that begin with "warning: "."""
        with self._log.open("rb") as log:
            log.seek(self._told)
            whole, end, _ = log.read().rpartition(b"\n")
        self._told += len(whole + end)
        lines = whole.decode(errors="replace").splitlines()
        return [line.removeprefix(WARNING) for line in lines if line.startswith(WARNING)]

    def failure(self) -> str | None:
        """What the child said before it ended other than in order."""
        if self._child.poll() in (None, 0):
            return None
        return f"training ended with status {self._child.returncode}: {log_tail(self._log)}"

    def end(self) -> None:
        """Ask the child to end; it keeps what it has."""
        end_child(self._child)


def _launcher(processes: int) -> list[str]:
    if processes == 1:
        return []
    count = f"--nproc-per-node={processes}"
    return ["torch.distributed.run", "--standalone", count, "--module"]


def read_tuned(path: Path) -> Tuned | None:
    """What a trial chose, once it is over."""
    try:
        return Tuned.parse(path.read_text())
    except FileNotFoundError:
        return None


def read_run(out: Path) -> Run | None:
    """When and how training in ``out`` began, if it did."""
    try:
        return Run.parse((out / RUN_FILE).read_text())
    except FileNotFoundError:
        return None


def read_snapshots(out: Path) -> list[Snapshot]:
    """The complete snapshots in ``out``, oldest first."""
    try:
        text = (out / SNAPSHOTS_FILE).read_text()
    except FileNotFoundError:
        return []
    return [Snapshot.parse(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def read_finished(out: Path) -> Finished | None:
    """How training in ``out`` ended, if it did."""
    try:
        return Finished.parse((out / FINISHED_FILE).read_text())
    except FileNotFoundError:
        return None


class ScoringProcess:
    """``python -m pouw.ml.scoring``: resident, confined, one request after the other.

    A child that dies, or takes more than ``model_seconds`` for each case of a request, answers what
    it was scoring with ProcessError; the next request starts a new one.
    """

    def __init__(
        self, log: Path, device: str = "cpu", model_seconds: float = MODEL_SECONDS
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._command = [sys.executable, "-m", "pouw.ml.scoring", "--device", device]
        self._model_seconds = model_seconds
        self._asked_at = self._limit_seconds = 0.0
        self._child: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._asked: str | None = None

    def warm(self) -> None:
        """Start the child, so that it has imported what it needs when there is a request."""
        if self._asked is not None:
            return  # a death is what the request is to be answered with
        if self._child is not None:
            if self._child.poll() is None:
                return
            end_child(self._child)
        with self._log.open("ab") as errors:
            child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=child_environment(threads=1),
            )
        self._child = child
        self._answers = queue.Queue()
        threading.Thread(target=pump, args=(child.stdout, self._answers), daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a request waits for its answer."""
        return self._asked is not None

    @property
    def pid(self) -> int | None:
        """The child's process id, None where there is no child."""
        return None if self._child is None else self._child.pid

    def ask(self, request: ScoringRequest) -> None:
        """Begin one request; ProcessError where another is under way."""
        if self._asked is not None:
            raise ProcessError(f"{self._asked} is being scored")
        self.warm()
        self._asked, self._asked_at = request.id, time.monotonic()
        cases = len(request.share.cases) if request.share else 1
        self._limit_seconds = self._model_seconds * cases
        if self._child is None:
            raise ProcessError("the scoring process did not start")
        tell(self._child.stdin, request.line() + "\n")

    def answer(self, timeout_seconds: float = 0.0) -> ScoringAnswer | None:
        """The answer, or None while there is none.

        Crashed where the child died of the request, ProcessError where it died otherwise.
        """
        if self._asked is None:
            return None
        try:
            line = self._answers.get(timeout=max(timeout_seconds, 0.0), block=timeout_seconds > 0)
        except queue.Empty:
            if time.monotonic() - self._asked_at > self._limit_seconds:
                asked = self._asked
                self.end()
                raise ProcessError(
                    f"scoring {asked} took more than {self._limit_seconds:.0f} s"
                ) from None
            return None
        asked, self._asked = self._asked, None
        if line is None:
            raise self._death(asked)
        answer = ScoringAnswer.parse(line)
        if answer.id != asked:
            raise ProcessError(f"asked to score {asked}, the answer is about {answer.id}")
        return answer

    def cancel(self) -> None:
        """Let the request under way end soon, with the answer "time"."""
        if self._asked is not None and self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGUSR1)

    def _death(self, asked: str) -> ProcessError:
        child, self._child = self._child, None
        if child is None:
            return ProcessError(f"scoring {asked} ended by nobody knows what")
        # Its answers end before it does: what it is about to say is why.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_END_SECONDS)
        end_child(child)
        kind = Crashed if blames_the_work(child.returncode) else ProcessError
        cause = cause_of_death(child.returncode)
        return kind(f"scoring {asked} ended the process by {cause}: {log_tail(self._log)}")

    def end(self) -> None:
        """End the child."""
        if self._child is not None:
            end_child(self._child)
            self._child = None
        self._asked = None


def pump(lines: IO[str] | None, answers: queue.Queue[str | None]) -> None:
    """Put every line of a child into the queue, and None at their end."""
    for line in lines or ():
        answers.put(line)
    answers.put(None)


def tell(pipe: IO[str] | None, text: str) -> None:
    """Write to a child; nothing happens where it has ended, which its answers will show."""
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):
            pipe.write(text)
            pipe.flush()


def end_child(child: subprocess.Popen[str]) -> None:
    """Ask a child to end, make it where it does not, and let go of its pipes."""
    child.terminate()
    try:
        child.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def child_environment(threads: int) -> dict[str, str]:
    """The environment of a child that computes on so many threads.

    What a user set about memory stays.
    """
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {**_KEEP_MEMORY, **os.environ, **counts}


def log_tail(log: Path) -> str:
    """What a child said last."""
    data = log.read_bytes()[-_LOG_TAIL_BYTES:]
    return data.decode(errors="replace").strip() or "it said nothing"
