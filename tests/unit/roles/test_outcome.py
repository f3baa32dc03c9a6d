"""How rounds ended, as miners and publishers are told: on a real chain, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from one_round import ETHER, IDLE, LATER, LIAR, PARAMETERS, PUBLISHER, TASK, WINNER, Stage

from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.journal import Journal
from pouw.roles.base import Notice, Setup
from pouw.roles.feed import Feed
from pouw.roles.outcome import tell_miner, tell_publisher
from pouw.storage.local import LocalStore
from pouw.types import Verdict

Said = Callable[[int], tuple[str, str]]


def told(stage: Stage, folder: Path, who: int) -> list[Notice]:
    """What that account is told of, by two starts of its role."""
    notices: list[Notice] = []
    client = stage.clients[who]
    for _ in range(2):
        with Journal(folder / f"{who}.sqlite") as journal:
            store = LocalStore(folder / "store")
            setup = Setup(client, store, folder, journal, 1, 0, notices.append)
            feed = Feed(client, 0, 1)
            feed.poll()
            if who == PUBLISHER:
                tell_publisher(setup, feed, {TASK})
            else:
                tell_miner(setup, feed)
    return notices


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Devnet(tmp_path / "chain", port=0, block_seconds=0) as devnet:
        endpoint = Endpoint.connect(devnet.url)
        yield Stage(endpoint)
        endpoint.close()


@pytest.fixture
def said(stage: Stage, tmp_path: Path) -> Callable[[int], tuple[str, str]]:
    def one(who: int) -> tuple[str, str]:
        (notice,) = told(stage, tmp_path, who)
        return notice.level, notice.text

    return one


def test_tell__round_with_a_winner__everybody_hears_once_what_came_of_it(
    stage: Stage, said: Said
) -> None:
    claims = {WINNER: 911_277, LATER: 894_900, LIAR: 990_000, IDLE: None}
    stage.play(claims, Verdict.WINNER)
    won = f"{stage.address(WINNER)}'s 0.9112 won"
    assert said(WINNER) == ("info", "round 1: won 0.475 ether")
    assert said(LATER) == (
        "info",
        f"round 1: {won}; the bond of the claim here, 0.8949, comes back",
    )
    assert said(LIAR) == (
        "warning",
        f"round 1: {won}; the claim of 0.9900 here was judged false, its bond is burned",
    )
    assert said(IDLE) == ("info", f"round 1: {won}; nothing was revealed here")
    assert said(PUBLISHER) == ("info", f"round 1, task 1: {won}; it cost 0.5 ether")


@pytest.mark.parametrize(
    ("claim", "verdict", "opened", "why", "fate", "cost"),
    [
        (900_000, Verdict.NO_TRUE_CLAIM, True, "no claim was true", "burned", "0.025 ether"),
        (900_000, Verdict.NONE, True, "the committee came to no verdict", "back", "0.025 ether"),
        (None, Verdict.NONE, True, "no model was revealed", "nothing", "0.025 ether"),
        (None, Verdict.NONE, False, "its test set was not opened", "nothing", "0.075 ether"),
        (900_000, Verdict.INVALID, True, "the task was judged invalid", "back", "0.075 ether"),
    ],
)
def test_tell__round_without_a_winner__says_why_and_what_it_cost(
    stage: Stage,
    said: Said,
    claim: int | None,
    verdict: Verdict,
    opened: bool,
    why: str,
    fate: str,
    cost: str,
) -> None:
    before = stage.clients[PUBLISHER].credit(stage.address(PUBLISHER))
    stage.play({WINNER: claim}, verdict, opened=opened)
    level, text = said(WINNER)
    assert f"round 1: no winner, {why}" in text
    assert fate in text
    assert (level == "warning") == (fate == "burned")
    level, text = said(PUBLISHER)
    assert level == "warning"
    assert f"round 1, task 1: no winner, {why}" in text
    assert text.endswith(f"it cost {cost}")
    back = stage.clients[PUBLISHER].credit(stage.address(PUBLISHER)) - before
    assert 55 * ETHER // 100 - back == int(float(cost.split()[0]) * 1000) * ETHER // 1000


def test_tell_publisher__data_key_too_late__warns_that_the_bond_is_burned(
    stage: Stage, said: Said
) -> None:
    stage.wait(PARAMETERS.phase2 + PARAMETERS.key_window)
    stage.clients[PUBLISHER].sync()
    level, text = said(PUBLISHER)
    assert level == "warning"
    assert "task 1 was dropped: its data key did not come in time" in text
    assert "the bond, 0.05 ether, is burned" in text


def test_tell__round_of_others__says_nothing(stage: Stage, tmp_path: Path) -> None:
    stage.play({WINNER: 911_277}, Verdict.WINNER)
    assert told(stage, tmp_path, IDLE) == []
