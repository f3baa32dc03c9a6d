"""What a miner does where its user says nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pouw.cli.miner import MOST_THREADS, threads_for
from pouw.parallel import usable_cores

ON_ONE = (
    "import os; from pouw.cli.miner import threads_for;"
    "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(threads_for(1))"
)


def test_threads__not_given__are_the_cores_shared_by_the_processes() -> None:
    cores = usable_cores()
    assert 1 <= cores <= (os.cpu_count() or 1)
    assert threads_for(1) == min(cores, MOST_THREADS)
    assert threads_for(2 * cores) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_threads__process_held_to_one_core__is_one() -> None:
    done = subprocess.run([sys.executable, "-c", ON_ONE], capture_output=True, check=True)
    assert done.stdout == b"1\n"
