"""A replay that lets closed rounds go says the same as one that keeps everything."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_play import Play
from ledger_stage import ALICE, ARENA, CHAIN_ID, PARAMETERS, Stage

from pouw.events import Event
from pouw.ledger.history import History, RoundRecord
from pouw.ledger.replay import Replay, replay


def stream(logs: list[Event]) -> tuple[History, list[RoundRecord]]:
    closed: list[RoundRecord] = []
    replaying = Replay(PARAMETERS, CHAIN_ID, ARENA, closed.append)
    for event in logs:
        replaying.feed(event)
    return replaying.history(), closed


def agree(logs: list[Event]) -> None:
    """Both replays of ``logs`` find the same and end the same."""
    whole = replay(logs, PARAMETERS, CHAIN_ID, ARENA)
    history, closed = stream(logs)
    assert set(map(str, history.findings)) == set(map(str, whole.findings))
    for name in ("pool", "pool_history", "last_header", "live", "selected", "credits"):
        assert getattr(history, name) == getattr(whole, name)
    rounds = [one for one in whole.rounds.values() if one.closed]
    assert closed == [replace(one, reclaimed={}) for one in rounds]


@settings(max_examples=25, deadline=None)
@given(st.integers(min_value=0, max_value=2**32))
def test_stream__random_play__is_the_whole_replay(seed: int) -> None:
    stage = Stage()
    Play(stage, seed).run(120)
    agree(stage.events)


def test_stream__closed_and_reclaimed__keeps_nothing_of_the_past() -> None:
    stage = Stage()
    for _ in range(5):
        stage.publish()
        stage.now += 1
        stage.run_round({ALICE: 900_000}, ALICE)
    replaying = Replay(PARAMETERS, CHAIN_ID, ARENA, lambda _: None)
    for event in stage.events:
        replaying.feed(event)
    assert not replaying._rounds
    assert not replaying._pool.tasks
    assert replaying.history().findings == ()
