"""Keys wait for confirmations, but not past the end of their window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from publishing import World, published_to

from pouw.roles.base import Notice
from pouw.roles.publisher import Publisher

WINDOW = 100
DEPTH = 10


@pytest.fixture
def world(anvil_url: str, tmp_path: Path) -> Iterator[World]:
    with published_to(anvil_url, tmp_path) as made:
        made.endpoint.request("anvil_mine", "0x20", "0x1")
        yield made


@pytest.fixture
def role(world: World) -> Iterator[tuple[Publisher, list[Notice]]]:
    """A publisher that waits for ten blocks."""
    said = list[Notice]()
    setup = replace(world.setup, confirmations=DEPTH, notify=said.append)
    made = Publisher(setup, inline=True)
    yield made, said
    made.close()


def to(world: World, moment: int) -> None:
    world.endpoint.request("evm_setNextBlockTimestamp", moment)
    world.endpoint.request("evm_mine")


def test_publisher__depth_does_not_come_in_time__both_keys_leave_in_the_last_third(
    world: World, role: tuple[Publisher, list[Notice]]
) -> None:
    publisher, _ = role
    parameters = world.arena.parameters()
    world.publish()
    opens = world.arena.state().selected_at + parameters.phase2
    to(world, opens + WINDOW // 2)
    assert publisher.run_once().doing == "wait"
    to(world, opens + WINDOW - WINDOW // 3)
    assert publisher.run_once().doing == "release the data key"

    live = world.arena.state().live_round
    assert live is not None
    t1 = world.arena.round(live).t0 + parameters.phase1
    to(world, t1 + WINDOW // 2)
    assert publisher.run_once().doing == "wait"
    to(world, t1 + WINDOW - WINDOW // 3)
    assert publisher.run_once().doing == "open the test set"
    assert world.arena.round(live).opened


def test_publisher__own_clock_ahead_of_the_chain__no_key_leaves_before_its_window(
    world: World, role: tuple[Publisher, list[Notice]], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, _ = role
    world.publish()
    parameters = world.arena.parameters()
    opens = world.arena.state().selected_at + parameters.phase2
    monkeypatch.setattr("pouw.chain.reading.time.time", lambda: opens + WINDOW - 1)
    assert publisher.run_once().doing == "wait"


@pytest.mark.parametrize(("seconds", "warned"), [(1, False), (12, True)])
def test_publisher__blocks_slower_than_the_depth_allows__says_so_once(
    world: World, role: tuple[Publisher, list[Notice]], seconds: int, warned: bool
) -> None:
    publisher, said = role
    world.endpoint.request("anvil_mine", "0x20", hex(seconds))
    for _ in range(2):
        publisher.run_once()
    # anvil's blocks are put so far ahead that its clock is told to be wrong as well.
    hints = [notice.data["hint"] for notice in said if "clock" not in notice.text]
    assert hints == ["lower --confirmations"] * warned
