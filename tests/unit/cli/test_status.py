from dataclasses import replace

import pytest

from pouw.cli.status import Own, next_step
from pouw.roles.view import View
from pouw.types import (
    ZERO_ADDRESS,
    ZERO_WORD,
    Address,
    ArenaState,
    Entry,
    EntryState,
    Parameters,
    Round,
    RoundNumber,
    Task,
    TaskId,
    Verdict,
)

ME = Address("0x" + "11" * 20)
PUBLISHER = Address("0x" + "33" * 20)
PARAMETERS = Parameters(
    asset=ZERO_ADDRESS,
    phase1=100,
    key_window=10,
    reveal_window=10,
    report_window=10,
    challenge_window=0,
    ruling_window=0,
    min_reward=1,
    publisher_bond_bps=0,
    oracle_fee_bps=0,
    miner_bond=1,
    challenge_bond=0,
    oracles=(Address("0x" + "22" * 20),),
    threshold=1,
    arbiter=ZERO_ADDRESS,
)
TASK = Task(
    TaskId(1),
    PUBLISHER,
    0,
    RoundNumber(1),
    False,
    False,
    1,
    TaskId(0),
    TaskId(0),
    ZERO_WORD,
    ZERO_WORD,
)
ROUND = Round(
    number=RoundNumber(1),
    task_id=TaskId(1),
    t0=1000,
    reveals=0,
    opened=False,
    challenged=False,
    ruled=False,
    changed=False,
    verdict=Verdict.NONE,
    voted=0,
    voters=0,
    winner=ZERO_ADDRESS,
    challenger=ZERO_ADDRESS,
    pool_history=ZERO_WORD,
    evidence_digest=ZERO_WORD,
    header=ZERO_WORD,
)
OWN = Own(ME, None, 0, is_oracle=False)
RELEASE = (
    "`pouw publisher run` must keep running: it must release the data key between "
    "1970-01-01 00:17:10 UTC and 1970-01-01 00:17:20 UTC, or the bond is lost"
)
OPEN = (
    "`pouw publisher run` must keep running: it must open the test set between "
    "1970-01-01 00:18:20 UTC and 1970-01-01 00:18:30 UTC, or the bond is lost"
)


def idle(now: int = 0) -> View:
    state = ArenaState(0, 0, TaskId(0), 0, live=False)
    return View(now, now, now, PARAMETERS, state, None, None, None)


def selected(now: int) -> View:
    """Selected at 1000, so that the key window is from 1030 to 1040."""
    return replace(
        idle(now), selected=TASK, state=ArenaState(1, 0, TaskId(1), selected_at=1000, live=False)
    )


def live(now: int, *, opened: bool = False) -> View:
    """Phase 1 from 1000 to 1100."""
    state = ArenaState(1, 1, TaskId(0), 0, live=True)
    return replace(idle(now), state=state, round=replace(ROUND, opened=opened), task=TASK)


def entry(state: EntryState) -> Own:
    return replace(OWN, entry=Entry(1000, 0, state, bytes(22)))


@pytest.mark.parametrize(
    ("view", "own", "expected"),
    [
        (idle(), None, "pouw publisher publish"),
        (selected(1000), None, "pouw miner run"),
        (selected(1035), None, "wait for the publisher's data key"),
        (selected(1040), None, "`pouw sync` drops"),
        (live(1050), OWN, "can still train and commit"),
        (live(1050), entry(EntryState.COMMITTED), "commits again"),
        (live(1115, opened=True), entry(EntryState.COMMITTED), "reveals once the test set is open"),
        (live(1115, opened=True), entry(EntryState.REVEALED), "nothing"),
        (live(1050), replace(OWN, is_oracle=True), "pouw oracle run"),
        (live(1130, opened=True), OWN, "pouw finalize"),
        (live(1050), replace(OWN, credit_wei=10**18), "pouw withdraw` brings you 1 ether"),
    ],
)
def test_next_step__names_what_helps_now(view: View, own: Own | None, expected: str) -> None:
    assert expected in next_step(view, own)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (selected(1000), RELEASE),
        (selected(1039), RELEASE),
        (selected(1040), "`pouw sync` drops"),
        (live(1050), OPEN),
        (live(1109), OPEN),
        (live(1105, opened=True), "nothing"),
        (live(1110), "pouw finalize"),
    ],
)
def test_next_step__of_the_publisher__is_the_key_that_its_bond_depends_on(
    view: View, expected: str
) -> None:
    publisher = Own(PUBLISHER, None, 0, is_oracle=False)
    assert expected in next_step(view, publisher)
    if expected in (RELEASE, OPEN):
        assert next_step(view, replace(publisher, credit_wei=1, is_oracle=True)) == expected


def test_next_step__round_closed_after_a_reveal__settles_the_bond() -> None:
    closed = replace(
        live(1200),
        state=ArenaState(1, 1, TaskId(0), 0, live=False),
        round=replace(ROUND, header=b"\x01" * 32),
    )
    assert "pouw reclaim 1" in next_step(closed, entry(EntryState.REVEALED))
    assert "pouw reclaim" not in next_step(closed, entry(EntryState.RECLAIMED))
