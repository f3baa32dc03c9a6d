from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_task import tiny_spec

from pouw.errors import ProcessError
from pouw.ml.requests import ScoringRequest
from pouw.roles.processes import Crashed, ScoringProcess, child_environment

TAKE_AND_GIVE_BACK = """
import resource, torch
torch.set_num_threads(1)
def step():
    kept = [torch.ones(10 << 20) for _ in range(4)]
for _ in range(4):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_taken(environment: dict[str, str]) -> int:
    """Pages that four rounds of taking 160 MiB and giving it back cost, after four such rounds."""
    command = [sys.executable, "-c", TAKE_AND_GIVE_BACK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is what is told")
def test_child_environment__memory_taken_again_and_again__is_kept() -> None:
    assert pages_taken(dict(os.environ)) > 100_000
    assert pages_taken(child_environment(1)) < 500


def test_child_environment__user_chose_an_allocator__it_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "5")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    environment = child_environment(2)
    assert environment["MALLOC_TRIM_THRESHOLD_"] == "5"
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "2"


def test_scoring__dies_and_is_warmed_up_before_its_answer_is_asked_for__says_what_ended_it(
    tmp_path: Path,
) -> None:
    process = ScoringProcess(tmp_path / "scoring.log", "cpu")
    try:
        process.ask(
            ScoringRequest(id="m", spec=tiny_spec(), data=tmp_path, model=tmp_path / "none")
        )
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        process.warm()
        with pytest.raises(ProcessError, match="scoring m ended the process by SIGKILL"):
            process.answer(timeout_seconds=10)
        assert not process.busy
    finally:
        process.end()


DYING = """
import os, sys, time
sys.stdin.readline()
os.close(1)
time.sleep(0.5)
print("what was wrong", file=sys.stderr, flush=True)
os._exit(int(sys.argv[1])) if int(sys.argv[1]) >= 0 else os.kill(os.getpid(), -int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("status", "crashed"),
    [
        (-signal.SIGSEGV, True),
        (-signal.SIGABRT, True),
        (-signal.SIGXCPU, True),
        (os.EX_SOFTWARE, True),
        (-signal.SIGKILL, False),
        (-signal.SIGTERM, False),
        (-signal.SIGBUS, False),
        (-signal.SIGILL, False),
        (1, False),
    ],
)
def test_scoring__ends_its_answers_and_dies_a_moment_later__says_what_it_said_and_whose_fault(
    tmp_path: Path, status: int, crashed: bool
) -> None:
    process = ScoringProcess(tmp_path / "scoring.log", "cpu")
    process._command = [sys.executable, "-c", DYING, str(status)]  # dies when it should
    try:
        process.ask(
            ScoringRequest(id="m", spec=tiny_spec(), data=tmp_path, model=tmp_path / "none")
        )
        with pytest.raises(ProcessError, match="what was wrong") as caught:
            process.answer(timeout_seconds=30)
        assert isinstance(caught.value, Crashed) == crashed
    finally:
        process.end()
