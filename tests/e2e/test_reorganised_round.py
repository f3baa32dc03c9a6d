"""An oracle on a chain that takes back what ended a round (anvil)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from revealing import FIRST, PARAMETERS, Entrant, Stage, revealed

from pouw.chain.rpc import Endpoint
from pouw.documents import Evidence
from pouw.events import Reported
from pouw.hashing import raw_cid
from pouw.journal import Journal
from pouw.roles.base import Notice, Setup
from pouw.roles.oracle import Oracle, OracleOptions

CONFIRMATIONS = 3
PATIENCE_SECONDS = 240.0


class World:
    """A round that is to be reported on, and an oracle that runs all the time."""

    def __init__(self, endpoint: Endpoint, folder: Path, journal: Journal) -> None:
        self.endpoint, self.home = endpoint, folder / "home"
        self.stage = Stage(endpoint, folder)
        self.notices: list[Notice] = []
        setup = Setup(
            arena=self.stage.clients[1],
            store=self.stage.store,
            home=self.home,
            journal=journal,
            confirmations=CONFIRMATIONS,
            from_block=0,
            notify=self.notices.append,
        )
        self.oracle = Oracle(setup, OracleOptions(), inline=True)

    def enter(self) -> tuple[Entrant, Entrant]:
        """A liar and an honest miner below it, who both revealed; reports are due."""
        honest = self.stage.model("honest", lambda tensor: tensor)
        other = self.stage.model("other", lambda tensor: tensor * 1.5)
        entrants = (
            self.stage.enter(2, other, 990_000),
            self.stage.enter(3, honest, self.stage.score_of(honest)),
        )
        revealed(self.stage, entrants, self.advance)
        return entrants

    def advance(self, seconds: int) -> None:
        self.endpoint.request("evm_increaseTime", seconds)
        self.endpoint.request("anvil_mine", hex(CONFIRMATIONS))

    def close_round(self) -> None:
        self.advance(PARAMETERS.report_window)
        self.stage.clients[0].finalize()
        self.advance(1)

    def take_back(self, snapshot: str) -> None:
        """Other blocks in place of those since ``snapshot``; their transactions are dropped."""
        lost = self.endpoint.block_number()
        assert self.endpoint.request("evm_revert", snapshot)
        self.endpoint.request("anvil_mine", hex(lost - self.endpoint.block_number()))

    def let_scoring_answer(self) -> None:
        """Wait for the answer to what was asked before the round was closed."""
        log, until = self.home / "scoring.log", time.monotonic() + PATIENCE_SECONDS
        while "confined by" not in log.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(1.0)

    def vote(self) -> Evidence:
        """Let the oracle go on until it has voted."""
        arena, until = self.stage.clients[1], time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            self.oracle.run_once()
            for event in arena.events(0, self.endpoint.block_number()):
                if isinstance(event, Reported):
                    data = self.stage.store.get_bytes(raw_cid(event.evidence_digest))
                    return Evidence.parse(data)
            time.sleep(0.05)
        raise AssertionError([notice.text for notice in self.notices])


@pytest.fixture
def world(anvil_url: str, tmp_path: Path) -> Iterator[World]:
    endpoint = Endpoint.connect(anvil_url)
    with Journal(tmp_path / "journal.sqlite") as journal:
        made = World(endpoint, tmp_path, journal)
        yield made
        made.oracle.close()
    endpoint.close()


def test_oracle__close_of_the_round_is_taken_back__judges_on_and_votes(world: World) -> None:
    liar, honest = world.enter()
    snapshot = world.endpoint.request("evm_snapshot")
    fetched = world.home / "models" / str(FIRST)
    while not fetched.exists():
        world.oracle.run_once()
    world.close_round()
    assert world.oracle.run_once().doing == "wait"
    assert not fetched.exists()
    world.let_scoring_answer()

    world.take_back(snapshot)
    evidence = world.vote()

    assert evidence.verdict == "winner"
    assert evidence.winner == honest.arena.sender.address
    assert [(one.miner, one.reason) for one in evidence.judged] == [
        (liar.arena.sender.address, "bound"),
        (honest.arena.sender.address, "score"),
    ]
