"""Two who cheat: ``python -m pouw.cli.demo.adversary over-claim|copycat`` in a role's home.

The over-claimer trains for a few steps and claims a Dice of 0.99. The copycat trains nothing: in
Phase 1 he commits to another miner's commitment, and once that miner has revealed, he tries to
reveal the same manifest and salt as his own. They use the same client as everybody else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from pouw.cli.adapters import setup_for
from pouw.cli.loop import ending_by_signals, run_role
from pouw.config import read_settings
from pouw.errors import PouwError, Reverted
from pouw.events import Committed, Revealed
from pouw.roles.base import Setup, Status
from pouw.roles.feed import Feed
from pouw.roles.miner import Miner, MinerOptions
from pouw.roles.view import View, read_view
from pouw.types import Address, RoundNumber

ATTEMPTS: Final = "attempts"
LIE_PPM: Final = 990_000
_STEPS: Final = 120  # not seconds: a busy machine may need those to begin


class OverClaimer(Miner):
    """A miner who lies about the score, whatever it is."""

    def claim_of(self, measured_ppm: int) -> int:
        """Always 0.99."""
        return LIE_PPM


class Copycat:
    """Replays the last commitment before Phase 1 ends (who trains longest), then its reveal."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._feed = Feed(setup.arena, setup.from_block, setup.confirmations)
        self._own: Address = setup.arena.sender.address
        self._copied: Committed | None = None

    def run_once(self) -> Status:
        """Copy the victim's last commitment; once it is opened, try to open it as one's own."""
        self._feed.poll()
        view = read_view(self._setup.arena, self._setup.confirmations)
        doing = self._act(view)
        attempts = self._setup.journal.items(ATTEMPTS)
        return Status("copycat", view.phase, doing, "whatever others do", {"attempts": attempts})

    def finish(self) -> None:
        """Nothing runs beside it."""

    def close(self) -> None:
        """Nothing runs beside it."""

    def _act(self, view: View) -> str:
        live, at = view.live, view.deadlines
        if live is None or at is None:
            return "wait for somebody to copy"
        events, arena = self._feed.round(live.number), self._setup.arena
        others = [event for miner, event in events.commits.items() if miner != self._own]
        if view.now < at.t1 and others:
            last = max(others, key=lambda event: event.position)
            if last != self._copied:
                arena.commit(live.number, last.commitment)
                self._copied = last
                self._setup.info(f"committed to what {last.miner} committed to")
        if self._copied is None or self._copied.round != live.number:
            return "wait for somebody to copy"
        revealed = events.reveals.get(self._copied.miner)
        if revealed and view.now < at.t3 and not self._tried(live.number):
            self._try(live.number, lambda: arena.reveal(*_opened(revealed)))
        return f"copy {self._copied.miner}"

    def _tried(self, number: int) -> bool:
        return self._setup.journal.get(ATTEMPTS, str(number)) is not None

    def _try(self, number: int, call: Callable[[], object]) -> None:
        try:
            call()
        except Reverted as error:
            outcome = error.name
        else:
            outcome = "accepted"
        self._setup.journal.put(ATTEMPTS, str(number), outcome)
        self._setup.warn(f"round {number}: revealing another's manifest: {outcome}")


def _opened(revealed: Revealed) -> tuple[RoundNumber, bytes, int, bytes]:
    """What a reveal made public: round, manifest, claim and salt."""
    return (
        revealed.round,
        revealed.manifest_digest,
        revealed.claimed_score,
        revealed.salt,
    )


def _build(kind: str, setup: Setup) -> OverClaimer | Copycat:
    if kind == "copycat":
        return Copycat(setup)
    options = MinerOptions(max_steps=_STEPS, commit_margin_seconds=8, first_snapshot_seconds=5)
    return OverClaimer(setup, options)


@click.command()
@click.argument("kind", type=click.Choice(["over-claim", "copycat"]))
def main(kind: str) -> None:
    """Cheat until a signal comes or standard input ends."""
    settings = read_settings({}, os.environ, Path.cwd())
    with ending_by_signals() as ending, setup_for(settings) as setup:
        ending.watch_stdin()
        run_role(_build(kind, setup), setup.home, ending, poll_seconds=1.0, once=False)


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except PouwError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
