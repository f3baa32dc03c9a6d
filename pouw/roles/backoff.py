"""When to try again what failed."""

from __future__ import annotations

import time
from typing import Final

_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 60.0


class Backoff:
    """A second after the first failure, then two, four and so on; never more than a minute.

    A failure long after the one before counts as a first one.
    """

    def __init__(self) -> None:
        self._pause_seconds = _FIRST_SECONDS
        self._until = 0.0

    @property
    def over(self) -> bool:
        """Whether it may be tried again."""
        return time.monotonic() >= self._until

    def fail(self) -> None:
        """Take note of a failure."""
        now = time.monotonic()
        if now > self._until + _LONGEST_SECONDS:
            self._pause_seconds = _FIRST_SECONDS
        self._until = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_SECONDS)
