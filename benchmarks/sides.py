"""Two ways to do the same, by turns, each in a process with the environment that it has in use.

Ours runs as a role starts its children (keeping memory is about a tenth of the time); the other as
one would start it. A side is this very module's caller, run again
with ``--side``: it prints a line of JSON when it is ready, and one for every line that it reads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from pouw.roles.processes import child_environment


class Side:
    """``python -m MODULE ARGUMENTS``; ``ready``: what it said first. Use it in a ``with``."""

    def __init__(self, module: str, arguments: Sequence[str], *, ours: bool, threads: int) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(threads) if ours else dict(os.environ),
        )
        self.ready = self._line()

    def turn(self) -> float:
        """Have it done once more; the seconds it took."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return float(self._line()["seconds"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()

    def _line(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        found: dict[str, Any] = json.loads(self._child.stdout.readline())
        return found


def fastest_of(sides: Sequence[Side], rounds: int, unmeasured: int) -> list[float]:
    """The least seconds of each side over ``rounds`` turns, after some that only warm up."""
    best = [float("inf")] * len(sides)
    for number in range(rounds + unmeasured):
        for place, side in enumerate(sides):
            seconds = side.turn()
            if number >= unmeasured:
                best[place] = min(best[place], seconds)
    return best


def answer(ready: dict[str, Any], call: Callable[[int], object], clock: Callable[[], float]) -> int:
    """Be a side: ``call`` with the number of every turn; returns the process's exit code."""
    print(json.dumps(ready), flush=True)
    for number, _ in enumerate(sys.stdin):
        begun = clock()
        call(number)
        print(json.dumps({"seconds": clock() - begun}), flush=True)
    return 0
