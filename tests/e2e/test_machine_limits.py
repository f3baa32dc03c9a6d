"""What one oracle's machine cannot do is held against nobody, on a real chain."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from revealing import Entrant, Stage, revealed
from watched import Watched

from pouw.chain.rpc import Endpoint
from pouw.roles.oracle import OracleOptions


def two_claims(stage: Stage, advance: Callable[[int], None]) -> list[Entrant]:
    """An honest claim at the top, and a false one below."""
    honest = stage.model("honest", lambda tensor: tensor)
    other = stage.model("other", lambda tensor: tensor * 1.5)
    score = stage.score_of(honest)
    entrants = [stage.enter(2, honest, score), stage.enter(3, other, score - 1)]
    revealed(stage, entrants, advance)
    return entrants


def test_oracle__case_takes_longer_than_this_machine_gives_it__votes_nothing_and_says_so_rarely(
    endpoint: Endpoint, advance: Callable[[int], None], tmp_path: Path
) -> None:
    stage = Stage(endpoint, tmp_path)
    two_claims(stage, advance)
    watched = Watched(stage, tmp_path, OracleOptions(model_seconds=0.01))
    try:
        begun = time.monotonic()
        assert watched.run(lambda: time.monotonic() - begun > 25) is None
        assert watched.said("took more than 0 s") <= 4
        assert not watched.said("measured")
    finally:
        watched.close()


def test_oracle__killed_over_the_first_again_and_again__judges_the_one_below_meanwhile(
    endpoint: Endpoint, advance: Callable[[int], None], tmp_path: Path
) -> None:
    stage = Stage(endpoint, tmp_path)
    first, second = two_claims(stage, advance)
    watched = Watched(stage, tmp_path, OracleOptions())
    judging = watched.oracle._judging
    killed: set[int] = set()

    def kill_over_the_first() -> bool:
        asked = judging._asked
        event = None if asked is None else asked.event
        if event is not None and event.miner == first.arena.sender.address:
            for seat in judging._scoring.seats:  # type: ignore[attr-defined]
                if seat.busy and seat.pid not in killed:
                    killed.add(seat.pid)
                    os.kill(seat.pid, signal.SIGKILL)
        return watched.said(f"{second.arena.sender.address} claims") > 0

    try:
        assert watched.run(kill_over_the_first) is None
        assert len(killed) >= 2
        assert not watched.said(f"{first.arena.sender.address} claims")
        evidence = watched.run(lambda: False)
        assert evidence is not None
        assert (evidence.verdict, evidence.winner) == ("winner", first.arena.sender.address)
    finally:
        watched.close()
