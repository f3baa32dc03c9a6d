from __future__ import annotations

from collections import Counter
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_play import MINERS, Play
from ledger_stage import Stage

from pouw.errors import Reverted
from pouw.events import TaskDropped
from pouw.ledger.header import verify_headers
from pouw.types import EntryState, Verdict

seeds = st.integers(min_value=0, max_value=2**32)


def played(seed: int, steps: int = 120) -> tuple[Stage, Play]:
    stage = Stage()
    play = Play(stage, seed)
    play.run(steps)
    return stage, play


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_replay__random_play__finds_nothing_and_agrees_with_the_model(seed: int) -> None:
    stage, _ = played(seed)
    history, arena = stage.replay(), stage.arena
    assert history.findings == ()
    assert verify_headers(history) == []
    assert history.pool == tuple(arena.pool)
    assert history.pool_history == arena.pool_history
    assert history.last_header == arena.last_header
    assert history.live == arena.state.live_round
    assert (history.selected.task_id if history.selected else 0) == arena.state.selected
    assert history.credits == {who: n for who, n in arena.books.credits.items() if n}
    for number, this in arena.rounds.items():
        record = history.rounds[number]
        assert (record.verdict, record.winner) == (this.verdict, this.winner)
        assert record.evidence_digest == this.evidence_digest
        assert len(record.reveals) == this.reveals
        states = [arena.entry(number, miner.address).state for miner in MINERS]
        assert len(record.reclaimed) == states.count(EntryState.RECLAIMED)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_model__random_play__holds_exactly_what_it_owes(seed: int) -> None:
    stage = Stage()
    play = Play(stage, seed)
    for _ in range(25):
        play.run(4)
        assert stage.arena.owed() == stage.arena.books.balance


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_model__from_every_state__time_and_anybody_lead_every_unit_to_its_owner(seed: int) -> None:
    """Invariant 6: publishers stay silent, strangers call, everything ends as a credit."""
    stage, _ = played(seed, 60)
    stranger = MINERS[0]
    for _ in range(3 * stage.arena.state.tasks + 3):
        stage.now += stage.parameters.phase1 + 2 * stage.parameters.phase2
        for settle in (stage.arena.sync, stage.arena.finalize):
            with suppress(Reverted):
                settle(stage.call(stranger))
    for number in stage.arena.rounds:
        for miner in MINERS:
            with suppress(Reverted):
                stage.arena.reclaim(stage.call(stranger), number, miner.address)
    state = stage.arena.state
    assert (state.live, state.selected, len(stage.arena.pool)) == (False, 0, 0)
    assert stage.arena.books.balance == stage.arena.books.credits.total()
    assert stage.replay().findings == ()


def test_plays__reach_every_call_and_every_outcome() -> None:
    moves: Counter[str] = Counter()
    verdicts: Counter[tuple[Verdict, bool, bool, bool]] = Counter()
    dropped = 0
    for seed in range(30):
        stage, play = played(seed, 200)
        moves.update(play.reached)
        dropped += sum(isinstance(event, TaskDropped) for event in stage.events)
        for this in stage.arena.rounds.values():
            if this.closed:
                verdicts[this.verdict, this.opened, this.ruled, this.changed] += 1
    assert set(moves) == {name for name in dir(Play) if name[0] != "_"} - {"run", "boundaries"}
    assert dropped
    for outcome in (Verdict.WINNER, Verdict.NO_TRUE_CLAIM, Verdict.INVALID):
        assert verdicts[outcome, True, False, False], outcome
    assert verdicts[Verdict.WINNER, True, True, False], "a ruling that confirms"
    assert verdicts[Verdict.WINNER, True, True, True], "a ruling that changes"
    assert verdicts[Verdict.NONE, True, False, False], "no quorum"
    assert verdicts[Verdict.NONE, False, False, False], "a test set that was never opened"
