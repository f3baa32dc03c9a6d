"""The child process that checks links and trains segments again, supervised."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from pouw.errors import MachineFailed, ProcessError
from pouw.ml.replays import (
    Answer,
    LinkAnswer,
    LinkRequest,
    Question,
    ReplayAnswer,
    ReplayRequest,
)
from pouw.roles.processes import child_environment, log_tail

LINK_SECONDS = 300.0
REPLAY_SECONDS = 3_600.0
_GRACE_SECONDS = 60.0
_END_SECONDS = 5.0


class Replayer:
    """``python -m pouw.ml.provenance``: one question after the other, asked from one thread.

    A child that dies, or does not answer in time and is ended, raises ProcessError; the next
    question starts a new one. One that the system ended by SIGKILL, as it does when memory runs
    out, is MachineFailed. Segments are trained on as many threads as their manifest names.
    """

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._child: subprocess.Popen[str] | None = None
        self._ended = False
        self._asking = threading.Lock()

    def warm(self) -> None:
        """Start the child, so that it has imported what it needs when there is a question."""
        with self._asking:
            self._started()

    def link(self, request: LinkRequest) -> LinkAnswer:
        """Whether a checkpoint is the link that it is said to be."""
        answer = self._ask(request, LINK_SECONDS)
        assert isinstance(answer, LinkAnswer)
        return answer

    def replay(self, request: ReplayRequest) -> ReplayAnswer:
        """What training a segment again shows."""
        seconds = REPLAY_SECONDS
        if request.stop_at_ms is not None:
            seconds = request.stop_at_ms / 1000 - time.time()
        answer = self._ask(request, max(seconds, 0) + _GRACE_SECONDS)
        assert isinstance(answer, ReplayAnswer)
        return answer

    def end(self) -> None:
        """End the child for good; a question under way raises ProcessError."""
        self._ended = True
        child = self._child
        if child is not None:
            child.terminate()
            try:
                child.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
        # Whoever still waits for an answer is told first.
        with self._asking:
            self._forget()

    def _ask(
        self, request: LinkRequest | ReplayRequest, limit_seconds: float
    ) -> LinkAnswer | ReplayAnswer:
        with self._asking:
            line = self._exchange(request, limit_seconds)
        answer = Answer.parse(line).answer
        if (answer.kind, answer.id) != (request.kind, request.id):
            raise ProcessError(f"asked about {request.id}, the answer is about {answer.id}")
        return answer

    def _exchange(self, request: LinkRequest | ReplayRequest, limit_seconds: float) -> str:
        child = self._started()
        assert child.stdin is not None
        assert child.stdout is not None
        timer = threading.Timer(limit_seconds, child.kill)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(Question(ask=request).line() + "\n")
                child.stdin.flush()
            line = child.stdout.readline()
            late = timer.finished.is_set()
        finally:
            timer.cancel()
        if not line:
            self._forget()
            by_system = child.returncode == -signal.SIGKILL and not late
            kind = MachineFailed if by_system else ProcessError
            raise kind(f"{request.id} ended the process: {log_tail(self._log)}")
        return line

    def _forget(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def _started(self) -> subprocess.Popen[str]:
        if self._ended:
            raise ProcessError("the replaying process was ended")
        if self._child is None:
            with self._log.open("ab") as errors:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "pouw.ml.provenance"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=child_environment(threads=1),
                )
        return self._child
