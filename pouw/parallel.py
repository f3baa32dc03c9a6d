"""Several blocks at a time, in order, memory bounded; how many cores and memory there are."""

from __future__ import annotations

import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_CORES = os.cpu_count() or 1
# Hashing, reading and flushing release the interpreter's lock.
THREADS = min(8, 2 * _CORES)
_COMPUTING_THREADS = min(8, _CORES)
_COMPUTED_TOGETHER = 4


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``function(item)`` of each item, in order, for what waits: at most 16 of them ahead."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="blocks") as pool:
        yield from _ahead((pool.submit(function, item) for item in items), 2 * THREADS)


def computed_in_order(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """As ``in_order`` for what computes: a thread a core, which takes a few items at a time.

    Handing over one block of 1 MiB costs a sixth of hashing it. Where ``function`` raises,
    results of the few items before may be lost.
    """

    def several(some: list[Item]) -> list[Result]:
        return [function(item) for item in some]

    with ThreadPoolExecutor(_COMPUTING_THREADS, thread_name_prefix="blocks") as pool:
        groups = (pool.submit(several, some) for some in _groups(items))
        for results in _ahead(groups, 2 * _COMPUTING_THREADS):
            yield from results


def _ahead(futures: Iterable[Future[Result]], most: int) -> Iterator[Result]:
    pending: deque[Future[Result]] = deque()
    for future in futures:
        pending.append(future)
        if len(pending) >= most:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _groups(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(itertools.islice(rest, _COMPUTED_TOGETHER)):
        yield some


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


def usable_memory_bytes() -> int:
    """How much memory this process may use: the machine's or, on Linux, its cgroup's share."""
    here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(here, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return here


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
