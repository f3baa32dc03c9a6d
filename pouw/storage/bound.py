"""How long an exchange with somebody else may last, and how much of it is read.

A timeout alone bounds each wait: whoever sends a byte now and then could hold a thread for ever.
Hence every wait of an exchange is cut from one deadline, in slices short enough that whoever asked
can end in the middle of one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from pouw.storage.block import LEAF_BYTES

SLICE_SECONDS: Final = 0.25
ENDING_SECONDS: Final = 1.0
"""What is under way when whoever asked ends has this long: an answer that is here is not lost."""
ANSWER_BYTES: Final = 2 * LEAF_BYTES
"""A block with what is around it: head, chunk sizes, trailers."""

Result = TypeVar("Result")


class Bound:
    """``seconds`` in all, none of them ``silence_seconds`` without a byte, ``most_bytes`` read.

    Once one of ``endings`` is set, ``ENDING_SECONDS`` are left. ``ended`` says that this was so.
    """

    __slots__ = ("_endings", "_ends", "ended", "most_bytes", "seconds", "silence_seconds")

    def __init__(
        self,
        seconds: float,
        silence_seconds: float = math.inf,
        most_bytes: int = ANSWER_BYTES,
        endings: tuple[threading.Event, ...] = (),
    ) -> None:
        self.seconds = seconds
        self.silence_seconds = silence_seconds
        self.most_bytes = most_bytes
        self.ended = False
        self._endings = endings
        self._ends = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self._ends

    def prolong(self) -> None:
        """Something was achieved: the seconds begin anew, unless whoever asked has ended."""
        if not self.ended:
            self._ends = time.monotonic() + self.seconds

    def share(self, until: float, parts: int) -> float:
        """The moment at which the first of so many equal parts of the time left is over."""
        now = time.monotonic()
        return now + max(0.0, min(until, self._ends) - now) / parts

    def slice(self, until: float) -> float:
        """Seconds to wait before asking again; TimeoutError once it is ``until`` or over."""
        now = time.monotonic()
        for ending in self._endings:
            if ending.is_set():
                self.ended, self._endings = True, ()
                self._ends = min(self._ends, now + ENDING_SECONDS)
        left = min(self._ends, until) - now
        if left <= 0:
            raise TimeoutError("timed out")
        return left if left < SLICE_SECONDS else SLICE_SECONDS

    def patiently(self, attempt: Callable[[float], Result], until: float | None = None) -> Result:
        """What ``attempt(seconds)`` returns, which is made again for as long as it times out.

        TimeoutError at ``until`` (None: after a silence), or when the deadline has passed.
        """
        if until is None:
            until = time.monotonic() + self.silence_seconds
        while True:
            seconds = self.slice(until)
            try:
                return attempt(seconds)
            except TimeoutError as error:
                if error.errno is not None:  # the system's own: the connection is gone
                    raise
