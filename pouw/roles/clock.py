"""A machine whose clock is wrong: decided by the chain's, and said."""

from __future__ import annotations

from pouw.chain.reading import TRUSTED_SECONDS
from pouw.roles.base import Setup
from pouw.roles.view import View


class ClockWatch:
    """Warns once that this machine's clock and the chain's differ, and again when that changes."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._told = 0

    def look(self, view: View) -> None:
        """Say what is new about the clocks."""
        ahead = view.ahead
        if abs(ahead) <= TRUSTED_SECONDS:
            if self._told:
                self._setup.info("this machine's clock and the chain's agree again")
            self._told = 0
            return
        # Behind an endpoint that stands still the difference grows with every look.
        if self._told and 1 / 2 < ahead / self._told < 2:
            return
        self._told = ahead
        where = "ahead of" if ahead > 0 else "behind"
        self._setup.warn(
            f"this machine's clock is {abs(ahead)} s {where} the chain's, which decides here",
            hint="set the clock, for instance by NTP; if it is right, the endpoint's chain "
            + ("stands still" if ahead > 0 else "runs ahead"),
        )
