from __future__ import annotations

from dataclasses import replace

import pytest
from ledger_stage import ALICE, BOB, CAROL, ORACLES, Actor, Stage

from pouw.ledger.history import History
from pouw.ledger.pruning import Keep, retentions
from pouw.types import Address, Verdict


@pytest.fixture(scope="module")
def history() -> History:
    """Rounds 1 and 2 take the same spec; Carol's claim in round 1 is false; round 3 has none true.

    Round 4 is live.
    """
    stage = Stage()
    for _ in range(4):
        stage.publish()
        stage.now += 1
    stage.run_round({ALICE: 900_000, BOB: 895_000, CAROL: 990_000}, ALICE)
    stage.run_round({ALICE: 880_000, BOB: 905_000}, BOB)
    stage.train({ALICE: 800_000})
    for oracle in ORACLES[:2]:
        stage.vote(oracle, Verdict.NO_TRUE_CLAIM)
    stage.finalize()
    stage.release()
    told = stage.replay()
    same = replace(told.rounds[2].task, spec_digest=told.rounds[1].task.spec_digest)
    second = replace(told.rounds[2], task=same)
    return replace(told, rounds={**told.rounds, 2: second})


def kept(history: History, keep: Keep, margin_ppm: int = 10_000) -> set[tuple[int, Address]]:
    return {
        (one.round, one.reveal.miner) for one in retentions(history, keep, margin_ppm) if one.kept
    }


def of(*models: tuple[int, Actor]) -> set[tuple[int, Address]]:
    return {(number, actor.address) for number, actor in models}


def test_best__same_spec_in_two_rounds__keeps_one_model(history: History) -> None:
    assert kept(history, Keep.BEST) == of((2, BOB))


def test_high_accuracy__keeps_what_is_close_to_the_best_of_the_task(history: History) -> None:
    assert kept(history, Keep.HIGH_ACCURACY) == of((2, BOB), (1, ALICE), (1, BOB))
    assert kept(history, Keep.HIGH_ACCURACY, 5_000) == of((2, BOB), (1, ALICE))


def test_false_claims__are_never_kept(history: History) -> None:
    carol = [one for one in retentions(history, Keep.HIGH_ACCURACY) if one.reveal.claim == 990_000]
    assert [(one.kept, one.reason) for one in carol] == [(False, "its claim was found to be false")]


def test_round_without_winner__is_pruned(history: History) -> None:
    third = [one for one in retentions(history, Keep.HIGH_ACCURACY) if one.round == 3]
    assert [(one.kept, one.reason) for one in third] == [(False, "its round has no winner")]


def test_retentions__worst_claims_come_first_and_kept_ones_last(history: History) -> None:
    found = retentions(history, Keep.HIGH_ACCURACY)
    assert [one.kept for one in found] == sorted(one.kept for one in found)
    pruned = [one.reveal.claim for one in found if not one.kept]
    assert pruned == sorted(pruned)
    assert {one.round for one in found} == {1, 2, 3}


def test_equal_scores__the_earlier_round_is_kept(history: History) -> None:
    first = replace(history.rounds[1], score=905_000)
    level = replace(history, rounds={**history.rounds, 1: first})
    assert {number for number, _ in kept(level, Keep.BEST)} == {1}


def test_first__claims_behind_the_earliest_true_one__are_not_kept_however_high(
    history: History,
) -> None:
    record = history.rounds[2]
    asked = replace(record, task=replace(record.task, first=True), winner=ALICE.address)
    alone = replace(history, rounds={2: replace(asked, score=880_000)})
    found = {one.reveal.miner: one for one in retentions(alone, Keep.HIGH_ACCURACY)}
    assert found[ALICE.address].kept
    assert not found[BOB.address].kept
    assert "not looked at" in found[BOB.address].reason
