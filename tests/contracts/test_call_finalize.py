"""finalize: every row of the outcome table, to the last unit, and the header.

Reward 100,003; fee 5,000 and publisher's bond 10,000 are rounded down from it.
"""

from __future__ import annotations

from typing import Any

import pytest
from scene import (
    BOND,
    CHALLENGE_BOND,
    EVIDENCE,
    FEE,
    REWARD,
    SPEC,
    Scene,
    parameters_of,
    without_arbiter,
)

from pouw import hashing
from pouw.types import (
    ZERO_ADDRESS,
    ZERO_WORD,
    Address,
    Deadlines,
    Header,
    RoundNumber,
    TaskId,
    Verdict,
)

CLAIMS = (900_000, 800_000, 700_000)


@pytest.fixture(scope="module")
def times(arena: Scene) -> Deadlines:
    """Miners 0, 1 and 2 revealed 900,000, 800,000 and 700,000."""
    times = arena.begin()
    arena.reveals(times, dict(zip(arena.cast.miners, CLAIMS, strict=False)))
    return times


def closing(scene: Scene, receipt: Any, verdict: Verdict, winner: Any = None) -> Any:
    """The RoundClosed event that round 1 must have written, its header hashed off chain."""
    claim = dict(zip(scene.cast.miners, CLAIMS, strict=False)).get(winner, 0)
    header = Header(
        number=RoundNumber(1),
        parent=hashing.domain_separator(1337, scene.contract.address),
        task_id=TaskId(1),
        spec_digest=SPEC,
        pool_history=hashing.pool_history(
            ZERO_WORD,
            hashing.PoolChange.PUBLISH,
            TaskId(1),
            scene.cast.publisher.address,
            SPEC,
            REWARD,
        ),
        verdict=verdict,
        winner=Address(ZERO_ADDRESS if winner is None else winner.address),
        score=claim,
        reveal_digest=bytes(22) if winner is None else scene.reveal_digest(winner, claim),
        evidence_digest=ZERO_WORD if verdict is Verdict.NONE else EVIDENCE,
        closed_at=receipt.timestamp,
    )
    return scene.event(
        "RoundClosed",
        round=1,
        verdict=int(verdict),
        winner=header.winner,
        score=header.score,
        revealDigest=header.reveal_digest,
        evidenceDigest=header.evidence_digest,
        closedAt=header.closed_at,
        header=hashing.header_hash(header),
    )


def settle(scene: Scene, miners: int = 3) -> list[bool]:
    """Reclaim every bond; whether each was burned. All money that came in is credited then."""
    burned = [bool(scene.reclaim(miner).events[0].burned) for miner in scene.cast.miners[:miners]]
    cast = scene.cast
    everybody = {cast.publisher, *cast.miners, *cast.oracles, cast.stranger, cast.arbiter}
    owed = sum(scene.contract.credits(account) for account in (*everybody, ZERO_ADDRESS))
    assert owed == scene.balance, "credits sum to what came in"
    return burned


def test_finalize__winner__pays_and_burns_above(arena: Scene, times: Deadlines) -> None:
    cast, winner = arena.cast, arena.cast.miners[1]
    arena.reports(times, Verdict.WINNER, winner)
    receipt = arena.at(times.t5).finalize()
    assert receipt.events == [
        closing(arena, receipt, Verdict.WINNER, winner),
        arena.credited(cast.oracles[0], FEE // 2),
        arena.credited(cast.oracles[1], FEE // 2),
        arena.credited(winner, REWARD - FEE),
        arena.credited(cast.publisher, BOND),
    ]
    state = arena.contract.arena()
    assert (state.live, state.rounds) == (False, 1)
    assert arena.contract.rounds(1).header == receipt.events[0].header
    assert settle(arena) == [True, False, False]


def test_finalize__three_voters__remainder_goes_to_the_winner(
    arena: Scene, times: Deadlines
) -> None:
    cast, winner = arena.cast, arena.cast.miners[0]
    arena.reports(times, Verdict.WINNER, winner, voters=3)
    receipt = arena.at(times.t5).finalize()
    assert receipt.events[1:] == [
        arena.credited(cast.oracles[0], 1_666),
        arena.credited(cast.oracles[1], 1_666),
        arena.credited(cast.oracles[2], 1_666),
        arena.credited(winner, REWARD - 3 * 1_666),
        arena.credited(cast.publisher, BOND),
    ]
    assert settle(arena) == [False, False, False]


def test_finalize__no_true_claim__returns_reward_burns_reveals(
    arena: Scene, times: Deadlines
) -> None:
    cast = arena.cast
    arena.reports(times, Verdict.NO_TRUE_CLAIM)
    receipt = arena.at(times.t5).finalize()
    assert receipt.events == [
        closing(arena, receipt, Verdict.NO_TRUE_CLAIM),
        arena.credited(cast.oracles[0], FEE // 2),
        arena.credited(cast.oracles[1], FEE // 2),
        arena.credited(cast.publisher, REWARD - FEE + BOND),
    ]
    assert settle(arena) == [True, True, True]


def test_finalize__invalid__burns_publishers_bond(arena: Scene, times: Deadlines) -> None:
    cast = arena.cast
    arena.reports(times, Verdict.INVALID)
    receipt = arena.at(times.t5).finalize()
    assert receipt.events == [
        closing(arena, receipt, Verdict.INVALID),
        arena.credited(cast.oracles[0], FEE // 2),
        arena.credited(cast.oracles[1], FEE // 2),
        arena.credited(cast.publisher, REWARD - FEE),
        arena.credited(None, BOND),
    ]
    assert settle(arena) == [False, False, False]


def test_finalize__no_quorum__burns_the_fee(arena: Scene, times: Deadlines) -> None:
    winner = arena.cast.miners[0]
    arena.reports(times, Verdict.WINNER, winner, voters=1)
    receipt = arena.at(times.t5).finalize()
    assert receipt.events == [
        closing(arena, receipt, Verdict.NONE),
        arena.credited(arena.cast.publisher, REWARD - FEE + BOND),
        arena.credited(None, FEE),
    ]
    assert settle(arena) == [False, False, False]


def test_finalize__no_reveal__burns_the_fee(arena: Scene) -> None:
    fresh = Scene.deploy(arena.cast, arena.parameters)
    times = fresh.begin()
    fresh.commit(fresh.cast.miners[0])
    fresh.at(times.t1).open_test()
    receipt = fresh.at(times.t5).finalize()
    assert receipt.events == [
        closing(fresh, receipt, Verdict.NONE),
        fresh.credited(fresh.cast.publisher, REWARD - FEE + BOND),
        fresh.credited(None, FEE),
    ]
    assert settle(fresh, miners=0) == []


def test_finalize__test_not_opened__burns_bond_and_fee(arena: Scene) -> None:
    fresh = Scene.deploy(arena.cast, arena.parameters)
    times = fresh.begin()
    fresh.commit(fresh.cast.miners[0])
    receipt = fresh.at(times.t2).finalize()
    assert receipt.events == [
        closing(fresh, receipt, Verdict.NONE),
        fresh.credited(fresh.cast.publisher, REWARD - FEE),
        fresh.credited(None, BOND + FEE),
    ]
    assert settle(fresh, miners=0) == []


def test_finalize__ruling_changes_the_outcome__challenger_gets_fee_and_bond(
    arena: Scene, times: Deadlines
) -> None:
    cast = arena.cast
    arena.reports(times, Verdict.WINNER, cast.miners[0])
    arena.at(times.t4).challenge(cast.stranger)
    arena.rule(Verdict.WINNER, cast.miners[1])
    receipt = arena.finalize()
    assert receipt.events == [
        closing(arena, receipt, Verdict.WINNER, cast.miners[1]),
        arena.credited(cast.stranger, FEE + CHALLENGE_BOND),
        arena.credited(cast.miners[1], REWARD - FEE),
        arena.credited(cast.publisher, BOND),
    ]
    assert settle(arena) == [True, False, False]


def test_finalize__ruling_confirms__burns_the_challenge_bond(
    arena: Scene, times: Deadlines
) -> None:
    cast = arena.cast
    arena.reports(times, Verdict.WINNER, cast.miners[0])
    arena.at(times.t4).challenge(cast.stranger)
    arena.rule(Verdict.WINNER, cast.miners[0])
    receipt = arena.finalize()
    assert receipt.events[1:] == [
        arena.credited(cast.oracles[0], FEE // 2),
        arena.credited(cast.oracles[1], FEE // 2),
        arena.credited(cast.miners[0], REWARD - FEE),
        arena.credited(cast.publisher, BOND),
        arena.credited(None, CHALLENGE_BOND),
    ]
    assert settle(arena) == [False, False, False]


def test_finalize__silent_arbiter__returns_the_challenge_bond(
    arena: Scene, times: Deadlines
) -> None:
    cast = arena.cast
    arena.reports(times, Verdict.WINNER, cast.miners[0])
    arena.at(times.t4).challenge(cast.stranger)
    with arena.at(times.t6 - 1).reverts("NotDecided", round=1):
        arena.finalize()
    receipt = arena.at(times.t6).finalize()
    assert receipt.events[1:] == [
        arena.credited(cast.oracles[0], FEE // 2),
        arena.credited(cast.oracles[1], FEE // 2),
        arena.credited(cast.stranger, CHALLENGE_BOND),
        arena.credited(cast.miners[0], REWARD - FEE),
        arena.credited(cast.publisher, BOND),
    ]
    assert settle(arena) == [False, False, False]


def test_finalize__silent_committee_then_ruling__pays_the_winner(
    arena: Scene, times: Deadlines
) -> None:
    cast = arena.cast
    arena.at(times.t4).challenge(cast.miners[2])
    arena.rule(Verdict.WINNER, cast.miners[2])
    receipt = arena.finalize()
    assert receipt.events[1:] == [
        arena.credited(cast.miners[2], FEE + CHALLENGE_BOND),
        arena.credited(cast.miners[2], REWARD - FEE),
        arena.credited(cast.publisher, BOND),
    ]
    assert settle(arena) == [True, True, False]


def test_finalize__silent_committee_and_silent_arbiter__is_no_outcome(
    arena: Scene, times: Deadlines
) -> None:
    cast = arena.cast
    arena.at(times.t4).challenge(cast.miners[0])
    receipt = arena.at(times.t6).finalize()
    assert receipt.events == [
        closing(arena, receipt, Verdict.NONE),
        arena.credited(cast.miners[0], CHALLENGE_BOND),
        arena.credited(cast.publisher, REWARD - FEE + BOND),
        arena.credited(None, FEE),
    ]
    assert settle(arena) == [False, False, False]


@pytest.mark.parametrize("verdict", [Verdict.NO_TRUE_CLAIM, Verdict.INVALID])
def test_finalize__ruling_against_a_winner__takes_it_back(
    arena: Scene, times: Deadlines, verdict: Verdict
) -> None:
    cast = arena.cast
    arena.reports(times, Verdict.WINNER, cast.miners[0])
    arena.at(times.t4).challenge(cast.publisher)
    arena.rule(verdict)
    receipt = arena.finalize()
    invalid = verdict is Verdict.INVALID
    returned = REWARD - FEE + (0 if invalid else BOND)
    assert receipt.events[1:] == [
        arena.credited(cast.publisher, FEE + CHALLENGE_BOND),
        arena.credited(cast.publisher, returned),
        *([arena.credited(None, BOND)] if invalid else []),
    ]
    assert settle(arena) == [not invalid] * 3


def test_finalize__not_decided__reverts(arena: Scene, times: Deadlines) -> None:
    arena.reports(times, Verdict.INVALID)
    with arena.at(times.t5 - 1).reverts("NotDecided", round=1):
        arena.finalize()


def test_finalize__challenged__waits_for_ruling(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t4).challenge(arena.cast.stranger)
    with arena.at(times.t5).reverts("NotDecided", round=1):
        arena.finalize()
    arena.rule(Verdict.INVALID)
    arena.finalize()


def test_finalize__again_or_never_live__reverts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t5).finalize()
    with arena.reverts("NotLive", round=1):
        arena.finalize()
    fresh = Scene.deploy(arena.cast, arena.parameters)
    with fresh.reverts("NotLive", round=0):
        fresh.finalize()


def test_finalize__test_may_still_be_opened__reverts(arena: Scene) -> None:
    fresh = Scene.deploy(arena.cast, arena.parameters)
    times = fresh.begin()
    for moment in (times.t0 + 2, times.t1, times.t2 - 1):
        with fresh.at(moment).reverts("NotDecided", round=1):
            fresh.finalize()


def test_finalize__another_waits__is_selected(arena: Scene, times: Deadlines) -> None:
    arena.publish(2_000)
    assert arena.contract.arena().selected == 2
    arena.at(times.t5).finalize()
    assert arena.contract.arena().selected == 2


def test_finalize__no_arbiter__is_decided_at_t4(arena: Scene) -> None:
    fresh = Scene.deploy(arena.cast, without_arbiter(arena.cast))
    times = fresh.begin()
    winner = fresh.cast.miners[0]
    fresh.reveals(times, {winner: 900_000})
    fresh.reports(times, Verdict.WINNER, winner)
    assert times.t4 == times.t5 == times.t6
    with fresh.at(times.t4 - 1).reverts("NotDecided", round=1):
        fresh.finalize()
    receipt = fresh.at(times.t4).finalize()
    assert fresh.credited(winner, REWARD - FEE) in receipt.events
    assert settle(fresh, miners=1) == [False]


def test_finalize__fee_too_small_to_share__goes_to_the_winner(arena: Scene) -> None:
    tiny = parameters_of(arena.cast, min_reward=1, oracle_fee_bps=500)
    fresh = Scene.deploy(arena.cast, tiny)
    times = fresh.begin(reward=39)
    winner = fresh.cast.miners[0]
    fresh.reveals(times, {winner: 900_000})
    fresh.reports(times, Verdict.WINNER, winner)
    receipt = fresh.at(times.t5).finalize()
    assert receipt.events[1:] == [
        fresh.credited(winner, 39),
        fresh.credited(fresh.cast.publisher, 3),
    ]


def test_finalize__free_arena__credits_nothing_but_the_reward(arena: Scene) -> None:
    free = parameters_of(
        arena.cast, publisher_bond_bps=0, oracle_fee_bps=0, miner_bond=0, challenge_bond=0
    )
    fresh = Scene.deploy(arena.cast, free)
    times = fresh.begin()
    winner = fresh.cast.miners[0]
    fresh.reveals(times, {winner: 900_000})
    fresh.reports(times, Verdict.WINNER, winner)
    receipt = fresh.at(times.t5).finalize()
    assert receipt.events[1:] == [fresh.credited(winner, REWARD)]
    assert [event.event_name for event in fresh.reclaim(winner).events] == ["Reclaimed"]


def test_headers__two_rounds__form_a_chain(arena: Scene, times: Deadlines) -> None:
    contract = arena.contract
    assert contract.lastHeader() == hashing.domain_separator(1337, contract.address)
    arena.at(times.t5).finalize()
    first = contract.rounds(1).header
    assert contract.lastHeader() == first
    later = arena.begin(reward=2_000)
    assert contract.lastHeader() == first
    receipt = arena.at(later.t2).finalize()
    round_ = contract.rounds(2)
    header = Header(
        number=RoundNumber(2),
        parent=bytes(first),
        task_id=TaskId(2),
        spec_digest=SPEC,
        pool_history=bytes(round_.poolHistory),
        verdict=Verdict.NONE,
        winner=ZERO_ADDRESS,
        score=0,
        reveal_digest=bytes(22),
        evidence_digest=ZERO_WORD,
        closed_at=receipt.timestamp,
    )
    assert contract.lastHeader() == round_.header == hashing.header_hash(header)
