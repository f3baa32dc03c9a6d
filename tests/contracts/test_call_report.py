"""report: one vote an oracle, a quorum of equal votes is the outcome."""

from __future__ import annotations

import pytest
from scene import EVIDENCE, Scene, parameters_of

from pouw import hashing
from pouw.types import ZERO_ADDRESS, ZERO_WORD, Deadlines, Verdict

OTHER = hashing.sha256(b"other evidence")


@pytest.fixture(scope="module")
def times(arena: Scene) -> Deadlines:
    """Miners 0 and 1 revealed 900,000 and 800,000; miner 2 committed only."""
    times = arena.begin()
    best, second, silent = arena.cast.miners[:3]
    arena.commit(silent)
    arena.reveals(times, {best: 900_000, second: 800_000})
    return times


def test_report__vote__is_recorded(arena: Scene, times: Deadlines) -> None:
    oracle, winner = arena.cast.oracles[1], arena.cast.miners[0]
    receipt = arena.at(times.t3).report(oracle, Verdict.WINNER, winner)
    assert receipt.events == [
        arena.event(
            "Reported",
            round=1,
            oracle=oracle.address,
            verdict=Verdict.WINNER,
            winner=winner.address,
            evidenceDigest=EVIDENCE,
        )
    ]
    round_ = arena.contract.rounds(1)
    assert (round_.voted, round_.voters, round_.verdict) == (0b010, 0, Verdict.NONE)
    assert arena.contract.votes(1, Verdict.WINNER, winner) == 0b010
    assert arena.contract.votes(1, Verdict.WINNER, arena.cast.miners[1]) == 0


def test_report__threshold_equal_votes__are_the_outcome(arena: Scene, times: Deadlines) -> None:
    first, second, third = arena.cast.oracles
    winner = arena.cast.miners[0]
    arena.at(times.t3).report(third, Verdict.WINNER, winner, evidence=OTHER)
    arena.report(first, Verdict.WINNER, winner)
    round_ = arena.contract.rounds(1)
    assert (round_.verdict, round_.winner) == (Verdict.WINNER, winner)
    assert (round_.voted, round_.voters) == (0b101, 0b101)
    assert round_.evidenceDigest == EVIDENCE, "that of the vote that completes the quorum"

    arena.report(second, Verdict.WINNER, winner, evidence=OTHER)
    round_ = arena.contract.rounds(1)
    assert (round_.voted, round_.voters) == (0b111, 0b111)
    assert round_.evidenceDigest == EVIDENCE


def test_report__dissent__neither_counts_nor_hinders(arena: Scene, times: Deadlines) -> None:
    first, second, third = arena.cast.oracles
    best, other = arena.cast.miners[:2]
    arena.at(times.t3).report(first, Verdict.WINNER, other)
    arena.report(second, Verdict.WINNER, best)
    assert arena.contract.rounds(1).verdict == Verdict.NONE
    arena.report(third, Verdict.WINNER, best)
    round_ = arena.contract.rounds(1)
    assert (round_.verdict, round_.winner, round_.voters) == (Verdict.WINNER, best, 0b110)


def test_report__dissent_after_the_quorum__changes_nothing(arena: Scene, times: Deadlines) -> None:
    best, other = arena.cast.miners[:2]
    arena.reports(times, Verdict.WINNER, best)
    arena.report(arena.cast.oracles[2], Verdict.WINNER, other)
    round_ = arena.contract.rounds(1)
    assert (round_.winner, round_.voted, round_.voters) == (best, 0b111, 0b011)


def test_report__same_winner_other_verdict__are_different_outcomes(
    arena: Scene, times: Deadlines
) -> None:
    first, second, third = arena.cast.oracles
    arena.at(times.t3).report(first, Verdict.INVALID)
    arena.report(second, Verdict.NO_TRUE_CLAIM)
    assert arena.contract.rounds(1).verdict == Verdict.NONE
    arena.report(third, Verdict.INVALID)
    round_ = arena.contract.rounds(1)
    assert (round_.verdict, round_.winner, round_.voters) == (Verdict.INVALID, ZERO_ADDRESS, 0b101)


@pytest.mark.parametrize("moment", [0, 1, 299])
def test_report__in_the_window__counts(arena: Scene, times: Deadlines, moment: int) -> None:
    arena.at(times.t3 + moment).report(arena.cast.oracles[0], Verdict.INVALID)
    assert arena.contract.rounds(1).voted == 0b001


def test_report__reveals_go_on__reverts(arena: Scene, times: Deadlines) -> None:
    now = times.t3 - 1
    with arena.at(now).reverts("TooEarly", time=now, opens=times.t3):
        arena.report(arena.cast.oracles[0], Verdict.INVALID)


@pytest.mark.parametrize("late", [0, 1])
def test_report__window_over__reverts(arena: Scene, times: Deadlines, late: int) -> None:
    now = times.t4 + late
    with arena.at(now).reverts("TooLate", time=now, closed=times.t4):
        arena.report(arena.cast.oracles[0], Verdict.INVALID)


def test_report__not_an_oracle__reverts(arena: Scene, times: Deadlines) -> None:
    for caller in (arena.cast.stranger, arena.cast.publisher, arena.cast.arbiter):
        with arena.at(times.t3).reverts("NotOracle", caller=caller.address):
            arena.report(caller, Verdict.INVALID)


def test_report__twice__reverts(arena: Scene, times: Deadlines) -> None:
    oracle = arena.cast.oracles[2]
    arena.at(times.t3).report(oracle, Verdict.INVALID)
    for verdict in (Verdict.INVALID, Verdict.NO_TRUE_CLAIM):
        with arena.reverts("AlreadyVoted", round=1, oracle=oracle.address):
            arena.report(oracle, verdict)


@pytest.mark.parametrize("number", [0, 2])
def test_report__no_such_round__reverts(arena: Scene, times: Deadlines, number: int) -> None:
    with arena.at(times.t3).reverts("TestNotOpen", round=number):
        arena.report(arena.cast.oracles[0], Verdict.INVALID, round_number=number)


def test_report__verdict_that_does_not_fit__reverts(arena: Scene, times: Deadlines) -> None:
    best, _, silent = arena.cast.miners[:3]
    arena.at(times.t3)
    for verdict, winner in (
        (Verdict.NONE, None),
        (Verdict.NONE, best),
        (Verdict.WINNER, None),
        (Verdict.WINNER, silent),
        (Verdict.WINNER, arena.cast.stranger),
        (Verdict.NO_TRUE_CLAIM, best),
        (Verdict.INVALID, best),
    ):
        named = ZERO_ADDRESS if winner is None else winner.address
        with arena.reverts("InvalidVerdict", verdict=int(verdict), winner=named):
            arena.report(arena.cast.oracles[0], verdict, winner)


def test_report__no_reveal__only_invalid_fits(arena: Scene) -> None:
    fresh = Scene.deploy(arena.cast, arena.parameters)
    times = fresh.begin()
    fresh.at(times.t1).open_test()
    oracle = fresh.cast.oracles[0]
    with fresh.at(times.t3).reverts(
        "InvalidVerdict", verdict=int(Verdict.NO_TRUE_CLAIM), winner=ZERO_ADDRESS
    ):
        fresh.report(oracle, Verdict.NO_TRUE_CLAIM)
    fresh.report(oracle, Verdict.INVALID)
    assert fresh.contract.rounds(1).voted == 0b001


def test_report__test_never_opened__reverts(arena: Scene) -> None:
    fresh = Scene.deploy(arena.cast, arena.parameters)
    times = fresh.begin()
    with fresh.at(times.t3).reverts("TestNotOpen", round=1):
        fresh.report(fresh.cast.oracles[0], Verdict.INVALID)


def test_report__one_oracle__decides_alone(arena: Scene) -> None:
    oracle = arena.cast.oracles[0]
    alone = parameters_of(arena.cast, oracles=(oracle.address,), threshold=1)
    fresh = Scene.deploy(arena.cast, alone)
    times = fresh.begin()
    fresh.at(times.t1).open_test()
    fresh.at(times.t3).report(oracle, Verdict.INVALID)
    round_ = fresh.contract.rounds(1)
    assert (round_.verdict, round_.voters) == (Verdict.INVALID, 1)
    assert round_.evidenceDigest != ZERO_WORD
