from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from pouw.roles.processes import child_environment

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
