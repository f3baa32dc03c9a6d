"""Several blocks at a time, results in order, memory bounded; and how many cores there are."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Hashing, reading and flushing release the interpreter's lock.
THREADS = min(8, 2 * (os.cpu_count() or 1))


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS
) -> Iterator[Result]:
    """``function(item)`` of each item, in order, at most ``2 * threads`` of them ahead."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="blocks") as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def usable_cores() -> int:
    """How many physical cores this process may use: its affinity and, on Linux, its cgroup's share.

    Threads of one core count once where the system tells which they are.
    """
    try:
        allowed = sorted(os.sched_getaffinity(0))
    except AttributeError:  # only Linux and some BSDs have it
        allowed = list(range(os.cpu_count() or 1))
    cores = {_core_of(processor) for processor in allowed}
    return max(1, min(len(cores), _share_of_time()))


def _core_of(processor: int) -> str:
    told = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
    try:
        return told.read_text()
    except OSError:
        return str(processor)


def _share_of_time() -> int:
    """The processors' time that a container is given, in processors; many where nothing is said."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return os.cpu_count() or 1
