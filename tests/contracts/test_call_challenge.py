"""challenge and rule: who doubts the outcome, or misses one, asks the arbiter."""

from __future__ import annotations

import pytest
from scene import CHALLENGE_BOND, EVIDENCE, Scene, without_arbiter

from pouw import hashing
from pouw.types import ZERO_ADDRESS, Deadlines, Verdict

RULING = hashing.sha256(b"the arbiter's evidence")


@pytest.fixture(scope="module")
def times(arena: Scene) -> Deadlines:
    """Miners 0 and 1 revealed; two oracles named miner 0 the winner."""
    times = arena.begin()
    best, second = arena.cast.miners[:2]
    arena.reveals(times, {best: 900_000, second: 800_000})
    arena.reports(times, Verdict.WINNER, best)
    return times


def test_challenge__in_the_window__is_recorded(arena: Scene, times: Deadlines) -> None:
    stranger = arena.cast.stranger
    before = arena.balance
    receipt = arena.at(times.t4).challenge(stranger)
    assert receipt.events == [arena.event("Challenged", round=1, challenger=stranger.address)]
    round_ = arena.contract.rounds(1)
    assert (round_.challenged, round_.challenger) == (True, stranger)
    assert arena.balance - before == CHALLENGE_BOND


def test_challenge__last_second__counts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t5 - 1).challenge(arena.cast.stranger)
    assert arena.contract.rounds(1).challenged


def test_challenge__reports_go_on__reverts(arena: Scene, times: Deadlines) -> None:
    now = times.t4 - 1
    with arena.at(now).reverts("TooEarly", time=now, opens=times.t4):
        arena.challenge(arena.cast.stranger)


@pytest.mark.parametrize("late", [0, 1])
def test_challenge__window_over__reverts(arena: Scene, times: Deadlines, late: int) -> None:
    now = times.t5 + late
    with arena.at(now).reverts("TooLate", time=now, closed=times.t5):
        arena.challenge(arena.cast.stranger)


def test_challenge__again__reverts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t4).challenge(arena.cast.stranger)
    with arena.reverts("NotChallengeable", round=1):
        arena.challenge(arena.cast.rival)


@pytest.mark.parametrize("sent", [0, CHALLENGE_BOND - 1, CHALLENGE_BOND + 1])
def test_challenge__other_than_the_bond__reverts(arena: Scene, times: Deadlines, sent: int) -> None:
    with arena.at(times.t4).reverts("WrongPayment", sent=sent, expected=CHALLENGE_BOND):
        arena.challenge(arena.cast.stranger, value=sent)


@pytest.mark.parametrize("number", [0, 2])
def test_challenge__no_such_round__reverts(arena: Scene, times: Deadlines, number: int) -> None:
    with arena.at(times.t4).reverts("TestNotOpen", round=number):
        arena.challenge(arena.cast.stranger, number)


def test_challenge__test_never_opened__reverts(arena: Scene) -> None:
    fresh = Scene.deploy(arena.cast, arena.parameters)
    times = fresh.begin()
    with fresh.at(times.t4).reverts("TestNotOpen", round=1):
        fresh.challenge(fresh.cast.stranger)


def test_challenge__no_arbiter__reverts(arena: Scene) -> None:
    fresh = Scene.deploy(arena.cast, without_arbiter(arena.cast))
    times = fresh.begin()
    fresh.at(times.t1).open_test()
    with fresh.at(times.t4).reverts("NotChallengeable", round=1):
        fresh.challenge(fresh.cast.stranger)


@pytest.mark.parametrize(
    ("verdict", "place", "changed"),
    [
        (Verdict.WINNER, 0, False),
        (Verdict.WINNER, 1, True),
        (Verdict.NO_TRUE_CLAIM, None, True),
        (Verdict.INVALID, None, True),
    ],
)
def test_rule__verdict__is_the_outcome(
    arena: Scene, times: Deadlines, verdict: Verdict, place: int | None, changed: bool
) -> None:
    winner = None if place is None else arena.cast.miners[place]
    named = ZERO_ADDRESS if winner is None else winner.address
    arena.at(times.t4).challenge(arena.cast.stranger)
    receipt = arena.rule(verdict, winner, evidence=RULING)
    assert receipt.events == [
        arena.event(
            "Ruled",
            round=1,
            verdict=int(verdict),
            winner=named,
            evidenceDigest=RULING,
            changed=changed,
        )
    ]
    round_ = arena.contract.rounds(1)
    assert (round_.ruled, round_.changed) == (True, changed)
    assert (round_.verdict, round_.winner, round_.evidenceDigest) == (verdict, named, RULING)


def test_rule__last_second__counts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t4).challenge(arena.cast.stranger)
    arena.at(times.t6 - 1).rule(Verdict.INVALID)
    assert arena.contract.rounds(1).ruled


@pytest.mark.parametrize("late", [0, 1])
def test_rule__window_over__reverts(arena: Scene, times: Deadlines, late: int) -> None:
    arena.at(times.t4).challenge(arena.cast.stranger)
    now = times.t6 + late
    with arena.at(now).reverts("TooLate", time=now, closed=times.t6):
        arena.rule(Verdict.INVALID)


def test_rule__not_the_arbiter__reverts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t4).challenge(arena.cast.stranger)
    for caller in (arena.cast.stranger, *arena.cast.oracles):
        with arena.reverts("NotArbiter", caller=caller.address):
            arena.rule(Verdict.INVALID, sender=caller)


def test_rule__not_challenged__reverts(arena: Scene, times: Deadlines) -> None:
    for number in (0, 1, 2):
        with arena.at(times.t4).reverts("NotRulable", round=number):
            arena.rule(Verdict.INVALID, round_number=number)


def test_rule__again__reverts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t4).challenge(arena.cast.stranger)
    arena.rule(Verdict.INVALID)
    with arena.reverts("NotRulable", round=1):
        arena.rule(Verdict.WINNER, arena.cast.miners[0])


def test_rule__verdict_that_does_not_fit__reverts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t4).challenge(arena.cast.stranger)
    for verdict, winner in (
        (Verdict.NONE, None),
        (Verdict.WINNER, None),
        (Verdict.WINNER, arena.cast.stranger),
        (Verdict.NO_TRUE_CLAIM, arena.cast.miners[0]),
    ):
        named = ZERO_ADDRESS if winner is None else winner.address
        with arena.reverts("InvalidVerdict", verdict=int(verdict), winner=named):
            arena.rule(verdict, winner)


def test_rule__missing_report__counts_as_changed(arena: Scene) -> None:
    fresh = Scene.deploy(arena.cast, arena.parameters)
    times = fresh.begin()
    best = fresh.cast.miners[0]
    fresh.reveals(times, {best: 900_000})
    fresh.reports(times, Verdict.WINNER, best, voters=1)
    fresh.at(times.t4).challenge(best)
    assert fresh.rule(Verdict.WINNER, best).events[0].changed
    round_ = fresh.contract.rounds(1)
    assert (round_.voters, round_.evidenceDigest) == (0, EVIDENCE)
