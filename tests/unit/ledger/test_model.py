from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from ledger_stage import (
    ALICE,
    ARBITER,
    BOB,
    BOND,
    CAROL,
    DAVE,
    FEE,
    ORACLES,
    PARAMETERS,
    PUBLISHER,
    REWARD,
    STRANGER,
    Stage,
    manifest_of,
    opening_key,
    salt_of,
)

from pouw import hashing
from pouw.errors import LedgerError, Reverted
from pouw.events import Credited
from pouw.types import ZERO_ADDRESS, EntryState, Parameters, PoolChange, Verdict


@pytest.fixture
def stage() -> Stage:
    return Stage()


def refused(name: str, call: Callable[[], object]) -> Reverted:
    with pytest.raises(Reverted) as caught:
        call()
    assert caught.value.name == name
    return caught.value


# Pool and selection


def test_publish__idle_arena__selects_at_once(stage: Stage) -> None:
    task_id = stage.publish()
    assert (stage.arena.state.selected, stage.arena.state.selected_at) == (task_id, stage.now)
    assert list(stage.arena.pool) == []
    assert stage.arena.books.balance == REWARD + BOND


def test_pool__orders_by_reward_then_lowest_id(stage: Stage) -> None:
    stage.publish()
    for reward in (5_000, 7_000, 5_000, 9_000, 7_000):
        stage.publish(reward)
    assert list(stage.arena.pool) == [5, 3, 6, 2, 4]
    assert stage.arena.task(3).above == 5
    assert stage.arena.task(3).below == 6
    assert stage.arena.pool.above(7_000) == 6
    assert stage.arena.pool.above(9_001) == 0


def test_top_up__moves_the_task_up_and_takes_the_growth_of_the_bond(stage: Stage) -> None:
    stage.publish()
    stage.publish(5_001)
    stage.publish(5_004)
    held = stage.arena.books.balance
    stage.arena.top_up(stage.call(PUBLISHER, 4 + 1), 2, 4)
    assert list(stage.arena.pool) == [2, 3]
    assert stage.arena.books.balance == held + 5
    refused("WrongPayment", lambda: stage.arena.top_up(stage.call(PUBLISHER, 5), 2, 4))
    refused("NothingToAdd", lambda: stage.arena.top_up(stage.call(PUBLISHER), 2, 0))
    refused("NotPublisher", lambda: stage.arena.top_up(stage.call(ALICE), 2, 1))


def test_cancel__credits_reward_and_bond_whole(stage: Stage) -> None:
    stage.publish()
    task_id = stage.publish(5_000)
    stage.arena.cancel(stage.call(PUBLISHER), task_id)
    assert stage.credit(PUBLISHER) == 6_000
    assert task_id not in stage.arena.tasks
    refused("TaskNotPooled", lambda: stage.arena.cancel(stage.call(PUBLISHER), task_id))


def test_selection__waits_for_t1_of_the_live_round(stage: Stage) -> None:
    stage.publish()
    stage.release()
    stage.publish(5_000)
    stage.now = stage.deadlines.t1 - 1
    stage.publish(9_000)
    assert stage.arena.state.selected == 0
    stage.now += 1
    stage.publish(20_000)
    assert stage.arena.state.selected == 3, "the head is selected before the new task enters"


def test_selected_in_the_same_call__can_no_more_be_cancelled_or_raised(stage: Stage) -> None:
    stage.publish()
    stage.release()
    task_id = stage.publish(5_000)
    stage.now = stage.deadlines.t1
    before = list(stage.events)
    refused("TaskNotPooled", lambda: stage.arena.cancel(stage.call(PUBLISHER), task_id))
    refused("TaskNotPooled", lambda: stage.arena.top_up(stage.call(PUBLISHER), task_id, 1))
    assert stage.events == before
    assert list(stage.arena.pool) == [task_id], "a refused call settles nothing"


def test_sync__late_key__drops_the_task_and_selects_the_next(stage: Stage) -> None:
    stage.publish()
    stage.publish(5_000)
    closes = stage.now + PARAMETERS.phase2 + PARAMETERS.key_window
    stage.now = closes - 1
    stage.arena.sync(stage.call(STRANGER))
    assert stage.arena.state.selected == 1
    stage.now = closes
    late = refused("TooEarly", stage.release)
    assert late.arguments["opens"] == closes + PARAMETERS.phase2
    stage.arena.sync(stage.call(STRANGER))
    assert stage.arena.state.selected == 2
    assert stage.credit(PUBLISHER) == REWARD
    assert stage.credit(None) == BOND


def test_sync__twice__changes_nothing(stage: Stage) -> None:
    stage.publish()
    stage.publish(5_000)
    stage.now += 1_000
    stage.arena.sync(stage.call(STRANGER))
    before = list(stage.events)
    stage.arena.sync(stage.call(STRANGER))
    assert stage.events == before


def test_pool_history__rolls_over_every_change(stage: Stage) -> None:
    stage.publish()
    stage.publish(5_000)
    stage.arena.top_up(stage.call(PUBLISHER), 2, 10)
    stage.arena.cancel(stage.call(PUBLISHER), 2)
    history = bytes(32)
    for kind, task_id, reward in (
        (PoolChange.PUBLISH, 1, REWARD),
        (PoolChange.SELECT, 1, REWARD),
        (PoolChange.PUBLISH, 2, 5_000),
        (PoolChange.TOP_UP, 2, 5_010),
        (PoolChange.CANCEL, 2, 0),
    ):
        spec = hashing.sha256(b"spec" + task_id.to_bytes(4))
        history = hashing.pool_history(history, kind, task_id, PUBLISHER.address, spec, reward)
    assert stage.arena.pool_history == history


# Windows and refusals


@pytest.mark.parametrize(
    ("reward", "min_score", "error"),
    [(999, 0, "RewardTooSmall"), (1_000, 1_000_001, "InvalidScore")],
)
def test_publish__out_of_bounds__reverts(
    stage: Stage, reward: int, min_score: int, error: str
) -> None:
    refused(error, lambda: stage.publish(reward, min_score=min_score))


def test_release_data_key__opens_to_closes(stage: Stage) -> None:
    refused("NothingSelected", stage.release)
    stage.publish()
    opens = stage.now + PARAMETERS.phase2
    key = hashing.data_key_of(opening_key(1))
    stage.now = opens - 1
    early = refused("TooEarly", lambda: stage.arena.release_data_key(stage.call(ALICE), key))
    assert early.arguments == {"time": opens - 1, "opens": opens}
    stage.now = opens + PARAMETERS.key_window - 1
    refused("WrongKey", lambda: stage.arena.release_data_key(stage.call(ALICE), bytes(32)))
    assert stage.arena.release_data_key(stage.call(ALICE), key) == 1
    assert stage.arena.rounds[1].t0 == stage.now


def test_release_data_key__closes_the_round_before(stage: Stage) -> None:
    stage.publish()
    stage.publish()
    stage.train({ALICE: 600_000})
    stage.release()
    assert stage.arena.rounds[1].closed
    assert stage.arena.rounds[2].pool_history != stage.arena.pool_history
    assert stage.now >= stage.arena.deadlines(1).t6


def test_commit__phase1_only_and_overwritable(stage: Stage) -> None:
    refused("NotLive", lambda: stage.arena.commit(stage.call(ALICE), 1, bytes(32)))
    stage.publish()
    stage.release()
    stage.arena.commit(stage.call(ALICE), 1, b"\x01" * 32)
    stage.now = stage.deadlines.t1 - 1
    stage.commit(ALICE)
    assert stage.arena.entry(1, ALICE.address).committed_at == stage.now
    stage.now += 1
    refused("TooLate", lambda: stage.commit(ALICE))


def test_open_test__t1_to_t2_once(stage: Stage) -> None:
    refused("NotLive", lambda: stage.arena.open_test(stage.call(ALICE), opening_key(1)))
    stage.publish()
    stage.release()
    stage.now = stage.deadlines.t1 - 1
    refused("TooEarly", lambda: stage.arena.open_test(stage.call(ALICE), opening_key(1)))
    stage.now = stage.deadlines.t2 - 1
    refused("WrongKey", lambda: stage.arena.open_test(stage.call(ALICE), opening_key(2)))
    stage.open()
    refused("TestAlreadyOpen", stage.open)


def test_open_test__at_t2__reverts(stage: Stage) -> None:
    stage.publish()
    stage.release()
    stage.now = stage.deadlines.t2
    refused("TooLate", stage.open)


def test_reveal__each_requirement(stage: Stage) -> None:
    stage.publish(min_score=600_000)
    stage.release()
    stage.commit(ALICE)
    refused("TestNotOpen", lambda: stage.reveal(ALICE, 700_000))
    stage.open()
    refused("NothingCommitted", lambda: stage.reveal(BOB, 700_000))
    refused("ClaimTooLow", lambda: stage.reveal(ALICE, 599_999))
    refused("InvalidScore", lambda: stage.reveal(ALICE, 1_000_001))
    reveal, signature = stage.arena.reveal, stage.signature(ALICE, 700_000)
    manifest, salt = manifest_of(ALICE), salt_of(ALICE)
    call = stage.call(ALICE)
    refused("CommitmentMismatch", lambda: reveal(call, 1, bytes(32), 700_000, salt, signature))
    refused("CommitmentMismatch", lambda: reveal(call, 1, manifest, 700_000, bytes(32), signature))
    refused("InvalidSignature", lambda: reveal(call, 1, manifest, 700_001, salt, signature))
    refused(
        "WrongPayment",
        lambda: reveal(stage.call(ALICE, 78), 1, manifest, 700_000, salt, signature),
    )
    stage.now = stage.deadlines.t3 - 1
    stage.reveal(ALICE, 700_000)
    refused("NothingCommitted", lambda: stage.reveal(ALICE, 700_000))
    stage.now += 1
    refused("TooLate", lambda: stage.reveal(ALICE, 700_000))


def test_report__each_requirement(stage: Stage) -> None:
    stage.publish()
    stage.release()
    stage.commit(ALICE)
    refused("TestNotOpen", lambda: stage.vote(ORACLES[0], Verdict.INVALID))
    stage.now = stage.deadlines.t1
    refused("NotOracle", lambda: stage.vote(ALICE, Verdict.INVALID))


def test_report__verdict_must_fit_what_was_revealed(stage: Stage) -> None:
    stage.publish()
    stage.train({})
    oracle = ORACLES[0]
    stage.now = stage.deadlines.t3 - 1
    report = stage.arena.report
    refused(
        "TooEarly",
        lambda: report(stage.call(oracle), 1, Verdict.INVALID, ZERO_ADDRESS, bytes(32)),
    )
    for verdict, winner in (
        (Verdict.NONE, None),
        (Verdict.WINNER, ALICE),
        (Verdict.NO_TRUE_CLAIM, None),
        (Verdict.INVALID, ALICE),
    ):
        refused("InvalidVerdict", lambda v=verdict, w=winner: stage.vote(oracle, v, w))
    stage.vote(oracle, Verdict.INVALID)
    refused("AlreadyVoted", lambda: stage.vote(oracle, Verdict.INVALID))
    stage.now = stage.deadlines.t4
    refused("TooLate", lambda: stage.vote(ORACLES[1], Verdict.INVALID))


def test_challenge_and_rule__each_requirement(stage: Stage) -> None:
    stage.publish()
    stage.train({ALICE: 600_000})
    stage.now = stage.deadlines.t4 - 1
    refused("TooEarly", lambda: stage.arena.challenge(stage.call(DAVE), 1))
    refused("NotArbiter", lambda: stage.arena.rule(stage.call(DAVE), 1, 1, ALICE.address, b""))
    refused("NotRulable", lambda: stage.rule(Verdict.WINNER, ALICE))
    stage.challenge(DAVE)
    refused("NotChallengeable", lambda: stage.challenge(BOB))
    refused("InvalidVerdict", lambda: stage.rule(Verdict.WINNER, BOB))
    refused("NotDecided", lambda: stage.arena.finalize(stage.call(DAVE)))
    stage.now = stage.deadlines.t6 - 1
    stage.rule(Verdict.WINNER, ALICE)
    refused("NotRulable", lambda: stage.rule(Verdict.WINNER, ALICE))


def test_challenge__no_arbiter__reverts() -> None:
    parameters = replace(PARAMETERS, arbiter=ZERO_ADDRESS, challenge_window=0, ruling_window=0)
    stage = Stage(parameters)
    stage.publish()
    stage.train({})
    refused("NotChallengeable", lambda: stage.challenge(DAVE))
    stage.finalize()
    assert stage.now == stage.arena.deadlines(1).t4


def test_finalize__before_decided__reverts(stage: Stage) -> None:
    refused("NotLive", lambda: stage.arena.finalize(stage.call(ALICE)))
    stage.publish()
    stage.train({ALICE: 600_000})
    stage.now = stage.deadlines.t5 - 1
    refused("NotDecided", lambda: stage.arena.finalize(stage.call(ALICE)))
    stage.now += 1
    stage.arena.finalize(stage.call(ALICE))


# Money: the outcome table


def test_winner__gets_the_reward_less_whole_shares(stage: Stage) -> None:
    stage.publish()
    stage.train({ALICE: 900_000, BOB: 800_000, CAROL: 700_000})
    for oracle in ORACLES:
        stage.vote(oracle, Verdict.WINNER, BOB)
    stage.finalize()
    share = FEE // 3
    assert [stage.credit(oracle) for oracle in ORACLES] == [share] * 3
    assert stage.credit(BOB) == REWARD - 3 * share
    assert stage.credit(PUBLISHER) == BOND
    assert stage.credit(None) == 0
    for miner in (ALICE, BOB, CAROL):
        refused("NothingToReclaim", lambda: stage.arena.reclaim(stage.call(BOB), 1, DAVE.address))
        stage.reclaim(miner)
    assert stage.credit(None) == PARAMETERS.miner_bond, "only the reveal above the winner burns"
    assert stage.credit(CAROL) == PARAMETERS.miner_bond
    refused("NothingToReclaim", lambda: stage.reclaim(CAROL))


def test_quorum__the_minority_gets_nothing(stage: Stage) -> None:
    stage.publish()
    stage.train({ALICE: 900_000, BOB: 800_000})
    stage.vote(ORACLES[0], Verdict.WINNER, ALICE)
    stage.vote(ORACLES[2], Verdict.WINNER, BOB)
    assert stage.arena.rounds[1].verdict is Verdict.NONE
    stage.vote(ORACLES[1], Verdict.WINNER, BOB)
    assert stage.arena.rounds[1].evidence_digest == hashing.sha256(
        b"evidence" + ORACLES[1].address.encode()
    )
    stage.finalize()
    assert [stage.credit(oracle) for oracle in ORACLES] == [0, FEE // 2, FEE // 2]


def test_no_true_claim__publisher_gets_the_reward_and_bonds_burn(stage: Stage) -> None:
    stage.publish()
    stage.train({ALICE: 900_000})
    for oracle in ORACLES[:2]:
        stage.vote(oracle, Verdict.NO_TRUE_CLAIM)
    stage.finalize()
    stage.reclaim(ALICE)
    assert stage.credit(PUBLISHER) == REWARD - 2 * (FEE // 2) + BOND
    assert stage.credit(None) == PARAMETERS.miner_bond


def test_invalid__burns_the_publishers_bond_and_returns_the_miners(stage: Stage) -> None:
    stage.publish()
    stage.train({ALICE: 900_000})
    for oracle in ORACLES[:2]:
        stage.vote(oracle, Verdict.INVALID)
    stage.finalize()
    stage.reclaim(ALICE)
    assert stage.credit(PUBLISHER) == REWARD - 2 * (FEE // 2)
    assert stage.credit(None) == BOND
    assert stage.credit(ALICE) == PARAMETERS.miner_bond


def test_no_quorum__burns_the_fee(stage: Stage) -> None:
    stage.publish()
    stage.train({ALICE: 900_000})
    stage.vote(ORACLES[0], Verdict.WINNER, ALICE)
    stage.finalize()
    stage.reclaim(ALICE)
    assert stage.credit(PUBLISHER) == REWARD - FEE + BOND
    assert stage.credit(None) == FEE
    assert stage.credit(ALICE) == PARAMETERS.miner_bond


def test_test_key_not_opened__burns_fee_and_publishers_bond(stage: Stage) -> None:
    stage.publish()
    stage.release()
    stage.commit(ALICE)
    stage.finalize()
    assert stage.now == stage.deadlines.t2
    assert stage.credit(PUBLISHER) == REWARD - FEE
    assert stage.credit(None) == FEE + BOND


def test_ruling__changes_the_outcome__challenger_gets_fee_and_bond(stage: Stage) -> None:
    stage.publish()
    stage.train({ALICE: 900_000, BOB: 800_000})
    for oracle in ORACLES[:2]:
        stage.vote(oracle, Verdict.WINNER, ALICE)
    stage.challenge(DAVE)
    stage.rule(Verdict.WINNER, BOB)
    stage.finalize()
    assert stage.credit(DAVE) == FEE + PARAMETERS.challenge_bond
    assert stage.credit(BOB) == REWARD - FEE
    assert all(stage.credit(oracle) == 0 for oracle in ORACLES)
    assert stage.arena.rounds[1].evidence_digest == hashing.sha256(b"ruling")


def test_ruling__confirms__burns_the_challenge_bond(stage: Stage) -> None:
    stage.publish()
    stage.train({ALICE: 900_000})
    for oracle in ORACLES[:2]:
        stage.vote(oracle, Verdict.WINNER, ALICE)
    stage.challenge(DAVE)
    stage.rule(Verdict.WINNER, ALICE)
    stage.finalize()
    assert stage.credit(DAVE) == 0
    assert stage.credit(None) == PARAMETERS.challenge_bond
    assert stage.credit(ORACLES[0]) == FEE // 2


@pytest.mark.parametrize("votes", [0, 2])
def test_challenge__without_a_ruling__returns_the_bond(stage: Stage, votes: int) -> None:
    stage.publish()
    stage.train({ALICE: 900_000})
    for oracle in ORACLES[:votes]:
        stage.vote(oracle, Verdict.WINNER, ALICE)
    stage.challenge(DAVE)
    stage.finalize()
    assert stage.now == stage.deadlines.t6
    assert stage.credit(DAVE) == PARAMETERS.challenge_bond


def test_first__earliest_commit_ranks_highest(stage: Stage) -> None:
    stage.publish(first=True)
    stage.run_round({ALICE: 600_000, BOB: 900_000, CAROL: 700_000}, BOB)
    assert stage.credit(None) == PARAMETERS.miner_bond
    assert stage.credit(ALICE) == 0
    assert stage.arena.entry(1, CAROL.address).state is EntryState.RECLAIMED


def test_equal_claims__earlier_commit_then_lower_address_rank_higher(stage: Stage) -> None:
    stage.publish()
    stage.release()
    low, high = sorted((ALICE, BOB), key=lambda each: int(each.address, 16))
    for miner in (high, low):
        stage.commit(miner)
    stage.now += 1
    stage.commit(CAROL)
    stage.open()
    for miner in (ALICE, BOB, CAROL):
        stage.reveal(miner, 700_000)
    for oracle in ORACLES[:2]:
        stage.vote(oracle, Verdict.WINNER, high)
    stage.finalize()
    for miner in (ALICE, BOB, CAROL):
        stage.reclaim(miner)
    assert stage.credit(low) == 0
    assert stage.credit(CAROL) == PARAMETERS.miner_bond


def test_withdraw__takes_the_whole_credit_once(stage: Stage) -> None:
    stage.publish()
    stage.run_round({ALICE: 900_000}, ALICE)
    credit = stage.credit(ALICE)
    refused("InvalidReceiver", lambda: stage.arena.withdraw(stage.call(ALICE), ZERO_ADDRESS))
    assert stage.arena.withdraw(stage.call(ALICE), BOB.address) == credit
    refused("NothingToWithdraw", lambda: stage.arena.withdraw(stage.call(ALICE), BOB.address))
    assert stage.arena.owed() == stage.arena.books.balance


def test_token_arena__refuses_ether() -> None:
    stage = Stage(replace(PARAMETERS, asset=BOB.address))
    spec, key = bytes(32), bytes(32)
    call = stage.call(PUBLISHER, 1)
    error = refused("WrongPayment", lambda: stage.arena.publish(call, spec, key, 0, False, 1_000))
    assert error.arguments == {"sent": 1, "expected": 0}


def test_credits__nothing_is_logged_for_nothing() -> None:
    stage = Stage(replace(PARAMETERS, publisher_bond_bps=0, oracle_fee_bps=0))
    stage.publish()
    stage.run_round({ALICE: 900_000}, ALICE)
    amounts = [event.amount for event in stage.events if isinstance(event, Credited)]
    assert amounts == [REWARD, PARAMETERS.miner_bond]


def test_call__time_runs_backwards__is_refused(stage: Stage) -> None:
    stage.publish()
    stage.now -= 1
    with pytest.raises(LedgerError, match="backwards"):
        stage.publish()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("phase1", {"phase1": 0}),
        ("keyWindow", {"key_window": 0}),
        ("revealWindow", {"reveal_window": 366 * 24 * 3600}),
        ("challengeWindow", {"challenge_window": 0}),
        ("challengeWindow", {"arbiter": ZERO_ADDRESS, "ruling_window": 0}),
        ("rulingWindow", {"ruling_window": 0}),
        ("minReward", {"min_reward": 0}),
        ("oracleFeeBps", {"oracle_fee_bps": 10_001}),
        ("oracles", {"oracles": ()}),
        ("oracles", {"oracles": (ALICE.address, ALICE.address)}),
        ("threshold", {"threshold": 1}),
        ("threshold", {"threshold": 4}),
    ],
)
def test_parameters__make_no_sense__are_refused(name: str, change: dict[str, object]) -> None:
    def deploy() -> Stage:
        changed: Parameters = replace(PARAMETERS, **change)
        return Stage(changed)

    assert refused("InvalidParameter", deploy).arguments == {"name": name}


def test_header__names_its_parent_and_the_pool_before_its_selection(stage: Stage) -> None:
    stage.publish()
    stage.publish(5_000)
    before = stage.arena.pool_history
    assert stage.arena.last_header == stage.arena.domain
    stage.run_round({ALICE: 900_000}, ALICE)
    first = stage.arena.last_header
    assert stage.arena.rounds[1].header == first
    stage.release()
    assert stage.arena.rounds[2].pool_history == before
    assert ARBITER.address == stage.parameters.arbiter
