"""What a confined process can no longer do, tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pouw.ml.sandbox import (
    BROKE_DOWN,
    blames_the_work,
    cause_of_death,
    cpu_limit,
    exit_status,
    memory_limit,
)

ATTEMPTS = {
    "socket": "import socket; socket.socket()",
    "socket pair": "import socket; socket.socketpair()",
    "program": "import subprocess; subprocess.run(['true'])",
    "process": "import os; os.fork()",
    "spawn": "import os; os.posix_spawn('/bin/true', ['true'], {})",
}
PROGRAM = """
import sys, threading
from pouw.ml.sandbox import confine
how = confine()
thread = threading.Thread(target=lambda: print("a thread"))
thread.start(); thread.join()
for attempt in sys.argv[1:]:
    try:
        exec(attempt)
    except OSError as error:
        print(how, error.errno)
    else:
        print("done", attempt)
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120
    )


def test_confine__sockets_programs_and_processes__are_refused_threads_are_not() -> None:
    ended = run(PROGRAM, *ATTEMPTS.values())
    assert ended.returncode == 0, ended.stderr
    how = "seccomp filter" if sys.platform == "linux" else "audit hook"
    assert ended.stdout.splitlines() == ["a thread", *[f"{how} 1"] * len(ATTEMPTS)]


def test_confine__without_seccomp__an_audit_hook_refuses_the_same() -> None:
    program = "import pouw.ml.sandbox as s; s._install_filter = lambda: False\n" + PROGRAM
    ended = run(program, *ATTEMPTS.values())
    assert ended.stdout.splitlines() == ["a thread", *["audit hook 1"] * len(ATTEMPTS)]


def test_memory_limit__passed__fails_where_it_is_allocated_and_is_lifted_after() -> None:
    size = 256 << 20
    with memory_limit(size // 2), pytest.raises((MemoryError, RuntimeError)):
        torch.zeros(size, dtype=torch.uint8)
    assert torch.zeros(size, dtype=torch.uint8).numel() == size


def test_cpu_limit__passed__the_kernel_ends_the_process() -> None:
    program = "from pouw.ml.sandbox import cpu_limit\nwith cpu_limit(0.0):\n    while True: pass"
    ended = run(program)
    assert "SIGXCPU" in cause_of_death(ended.returncode)


def test_cpu_limit__kept__is_lifted_after() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_CPU)
    with cpu_limit(1_000):
        assert resource.getrlimit(resource.RLIMIT_CPU) != before
    assert resource.getrlimit(resource.RLIMIT_CPU) == before


def test_flushed_denormals__set_before_the_first_thread__hold_in_all_of_them() -> None:
    """As the scoring process does at its start: one thread of torch's pool would be enough."""
    program = (
        "import torch\ntorch.set_flush_denormal(True)\ntorch.set_num_threads(4)\n"
        "print(int((torch.full((1 << 22,), 1e-40) * 1.0).count_nonzero()), torch.get_num_threads())"
    )
    assert run(program).stdout.split() == ["0", "4"]


def raises(error: BaseException) -> int:
    def work() -> None:
        raise error

    return exit_status(work)


def test_exit_status__error_that_nobody_foresaw__is_held_against_the_work(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert raises(KeyError("what was wrong")) == BROKE_DOWN
    assert "what was wrong" in capfd.readouterr().err
    assert blames_the_work(BROKE_DOWN)
    assert exit_status(lambda: None) == 0


@pytest.mark.parametrize("error", [MemoryError(), OSError(), RuntimeError("can't allocate memory")])
def test_exit_status__what_may_be_the_machine__is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        raises(error)
    assert not blames_the_work(1)
