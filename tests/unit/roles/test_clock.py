"""What roles do where this machine's clock and the chain's disagree, against a real chain."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from one_round import ETHER, PARAMETERS, PUBLISHER, TEST_KEY, Stage

from pouw.chain.reading import Clock, read_clock
from pouw.chain.rpc import Endpoint
from pouw.journal import Journal
from pouw.roles.base import Notice, Setup
from pouw.roles.drafts import Draft, Drafts
from pouw.roles.publisher import Publisher
from pouw.roles.view import View
from pouw.storage.local import LocalStore
from pouw.types import ZERO_ADDRESS, ArenaState, TaskId

DRAFT = Draft(b"d" * 32, TEST_KEY, "hearts", task_id=TaskId(1), told=True, sent=True, told_at=1)
HOUR = 3600


class World(Stage):
    """A publisher whose only task is selected, and whose key window is open."""

    def __init__(self, endpoint: Endpoint, home: Path, journal: Journal) -> None:
        super().__init__(endpoint)
        Drafts(journal).add(DRAFT, ())
        self.notices: list[Notice] = []
        client, store = self.clients[PUBLISHER], LocalStore(home / "store")
        self.setup = Setup(client, store, home, journal, 1, 0, self.notices.append)
        self.role = Publisher(self.setup, inline=True)
        self.wait(PARAMETERS.phase2)

    def sent(self) -> int:
        """How many transactions the publisher has sent."""
        return self.endpoint.quantity("eth_getTransactionCount", self.address(PUBLISHER), "pending")

    def clock_notices(self) -> list[tuple[str, str]]:
        return [(one.level, one.text) for one in self.notices if "clock" in one.text]


@contextmanager
def world(url: str, home: Path) -> Iterator[World]:
    endpoint = Endpoint.connect(url)
    with Journal(home / "journal.sqlite") as journal:
        found = World(endpoint, home, journal)
        yield found
        found.role.close()
    endpoint.close()


def test_publisher__clock_an_hour_ahead__releases_its_key_and_sends_nothing_else(
    hour_old_anvil: str, tmp_path: Path
) -> None:
    with world(hour_old_anvil, tmp_path) as there:
        before, until = there.sent(), time.monotonic() + 30
        while not there.arena.state().live and time.monotonic() < until:
            there.role.run_once()
        there.role.run_once()

        assert there.arena.state().live
        assert there.sent() == before + 1
        ((level, text),) = there.clock_notices()
        assert level == "warning"
        assert "ahead" in text


def test_publisher__clock_an_hour_ahead_and_its_key_too_late__closes_the_task(
    hour_old_anvil: str, tmp_path: Path
) -> None:
    with world(hour_old_anvil, tmp_path) as there:
        there.wait(PARAMETERS.key_window)
        there.role.run_once()

        assert there.arena.credit(ZERO_ADDRESS) == ETHER // 20
        assert not there.arena.state().selected


def test_publisher__clock_behind_the_chains__is_warned_again_when_that_changes(
    anvil_url: str, tmp_path: Path
) -> None:
    with world(anvil_url, tmp_path) as there:
        for seconds in (0, 1, 4 * HOUR):
            there.wait(seconds)
            there.role.run_once()
            there.role.run_once()

        levels = [level for level, _ in there.clock_notices()]
        assert levels == ["warning", "warning"]
        assert all("behind" in text for _, text in there.clock_notices())


@pytest.mark.parametrize(
    ("own", "latest", "pending", "now", "contract_now", "behind"),
    [
        (1000, 1000, 1000, 1000, 1000, 0),
        (1060, 990, 1000, 1060, 1000, 0),
        (1061, 990, 1000, 1000, 1000, -61),
        (4600, 1000, 1000, 1000, 1000, -3600),
        (900, 1000, 1000, 1000, 1000, 100),
        (1005, 1000, 1012, 1005, 1012, 0),  # told for the next slot
        (9000, 1000, 9000, 9000, 9000, 0),  # idle
        (9000, 1000, 900, 1000, 1000, -8000),
    ],
)
def test_clock__they_differ__waits_by_the_own_one_unless_that_cannot_be_right(
    own: int, latest: int, pending: int, now: int, contract_now: int, behind: int
) -> None:
    clock = Clock(own, latest, pending)

    assert (clock.now, clock.contract) == (now, contract_now)
    state = ArenaState(0, 0, TaskId(0), 0, live=False)
    view = View(now, contract_now, now, PARAMETERS, state, None, None, None, clock.ahead)
    assert view.behind == behind


def test_clock__latest_block_an_hour_old__is_the_pending_ones(idle_anvil: str) -> None:
    endpoint = Endpoint.connect(idle_anvil)

    clock = read_clock(endpoint)

    assert endpoint.timestamp("latest") < time.time() - HOUR + 60
    assert abs(clock.contract - time.time()) < 5
    assert abs(clock.ahead) < 5
    endpoint.close()
