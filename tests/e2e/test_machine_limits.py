"""What one oracle's machine cannot do is held against nobody, on a real chain."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from revealing import Entrant, Stage, revealed

from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.documents import Evidence
from pouw.events import Reported
from pouw.hashing import raw_cid
from pouw.journal import Journal
from pouw.roles.base import Notice, Setup
from pouw.roles.oracle import Oracle, OracleOptions

PATIENCE_SECONDS = 240.0


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with Devnet(tmp_path / "chain", port=0, block_seconds=0) as running:
        connected = Endpoint.connect(running.url)
        yield connected
        connected.close()


@pytest.fixture
def advance(endpoint: Endpoint) -> Callable[[int], None]:
    def pass_time(seconds: int) -> None:
        endpoint.request("evm_increaseTime", seconds)
        endpoint.request("evm_mine")

    return pass_time


class Watched:
    """One oracle over a stage's round, with what it said."""

    def __init__(self, stage: Stage, folder: Path, options: OracleOptions) -> None:
        self.notices: list[Notice] = []
        self._stage = stage
        self._journal = Journal(folder / "journal.sqlite")
        setup = Setup(
            stage.clients[1], stage.store, folder / "home", self._journal, 1, 0, self.notices.append
        )
        self.oracle = Oracle(setup, options, inline=True)

    def run(self, done: Callable[[], bool]) -> Evidence | None:
        """Look until ``done`` or a vote, which is returned."""
        until = time.monotonic() + PATIENCE_SECONDS
        arena = self._stage.clients[1]
        while time.monotonic() < until:
            self.oracle.run_once()
            for event in arena.events(0, arena.endpoint.block_number()):
                if isinstance(event, Reported):
                    document = self._stage.store.get_bytes(raw_cid(event.evidence_digest))
                    return Evidence.parse(document)
            if done():
                return None
            time.sleep(0.05)
        raise AssertionError([notice.text for notice in self.notices])

    def said(self, text: str) -> int:
        return sum(text in notice.text for notice in self.notices)

    def close(self) -> None:
        self.oracle.close()
        self._journal.close()


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
        if asked is not None and asked[0].miner == first.arena.sender.address:
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
