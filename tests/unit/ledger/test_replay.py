from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from ledger_stage import (
    ALICE,
    ARENA,
    BOB,
    BOND,
    CAROL,
    CHAIN_ID,
    DAVE,
    FEE,
    ORACLES,
    PARAMETERS,
    PUBLISHER,
    STRANGER,
    Stage,
    opening_key,
    renumbered,
)
from msgspec.structs import replace

from pouw import events, hashing
from pouw.errors import LedgerError
from pouw.events import Event
from pouw.ledger.history import History, Rule, TaskState
from pouw.ledger.replay import Replay, replay
from pouw.types import ZERO_ADDRESS, Address, PoolChange, Verdict

Kind = TypeVar("Kind", bound=Event)


@pytest.fixture(scope="module")
def played() -> Stage:
    """Three rounds, a dropped task and a cancelled one.

    Round 1 is won by Bob over Alice's false claim, round 2 by Carol after a ruling that changed
    the outcome, round 3 is live. A poor task stays unfinished until it alone is left.
    """
    stage = Stage()
    stage.publish()
    stage.now += 1
    for reward in (2_000, 30_000, 9_000, 20_000, 10_000):
        stage.publish(reward)
    stage.arena.top_up(stage.call(PUBLISHER), 4, 2_000)
    stage.run_round({ALICE: 900_000, BOB: 800_000, CAROL: 700_000}, BOB)
    stage.arena.cancel(stage.call(PUBLISHER), 6)
    stage.train({ALICE: 910_000, CAROL: 710_000})
    for oracle in ORACLES[:2]:
        stage.vote(oracle, Verdict.WINNER, ALICE)
    stage.challenge(DAVE)
    stage.rule(Verdict.WINNER, CAROL)
    stage.finalize()
    for miner in (ALICE, CAROL):
        stage.reclaim(miner)
    stage.arena.withdraw(stage.call(CAROL), DAVE.address)
    stage.now += PARAMETERS.phase1 + PARAMETERS.phase2 + PARAMETERS.key_window
    stage.arena.sync(stage.call(STRANGER))
    stage.train({BOB: 600_000})
    stage.vote(ORACLES[2], Verdict.WINNER, BOB)
    return stage


def told(logs: list[Event]) -> History:
    """The history of ``logs``; a replay that lets closed rounds go finds the same."""
    history = replay(logs, PARAMETERS, CHAIN_ID, ARENA)
    streaming = Replay(PARAMETERS, CHAIN_ID, ARENA, lambda _: None)
    for event in logs:
        streaming.feed(event)
    assert rules_of(streaming.history()) == rules_of(history)
    return history


def rules_of(history: History) -> list[tuple[int | None, Rule]]:
    return [(finding.round, finding.rule) for finding in history.findings]


def nth(logs: list[Event], kind: type[Kind], place: int = 0) -> tuple[int, Kind]:
    """Position and event number ``place`` of its kind."""
    found = [(at, event) for at, event in enumerate(logs) if isinstance(event, kind)]
    return found[place]


def altered(logs: list[Event], kind: type[Event], place: int, **change: object) -> list[Event]:
    at, event = nth(logs, kind, place)
    return [*logs[:at], replace(event, **change), *logs[at + 1 :]]


def without(logs: list[Event], kind: type[Event], place: int = 0) -> list[Event]:
    at, _ = nth(logs, kind, place)
    return logs[:at] + logs[at + 1 :]


# An honest history


def test_replay__honest_history__finds_nothing_and_ends_like_the_model(played: Stage) -> None:
    history, arena = played.replay(), played.arena
    assert history.findings == ()
    assert history.pool == tuple(arena.pool)
    assert history.pool_history == arena.pool_history
    assert history.last_header == arena.last_header
    assert history.credits == {who: n for who, n in arena.books.credits.items() if n}
    assert history.live == 3
    assert history.selected == history.selections[-1]
    assert history.block_number == played.events[-1].block_number
    for number, this in arena.rounds.items():
        record = history.rounds[number]
        assert (record.task.task_id, record.t0) == (this.task_id, this.t0)
        assert record.selection.pool_history == this.pool_history
        assert (record.verdict, record.winner) == (this.verdict, this.winner)
        assert record.header_hash == (this.header if this.closed else None)


def test_replay__unfinished_tasks_of_every_selection(played: Stage) -> None:
    history = played.replay()
    assert [each.task_id for each in history.selections] == [1, 3, 5, 4, 2]
    assert [each.unfinished for each in history.selections] == [(), (5, 4, 6, 2), (4, 2), (2,), ()]
    assert history.rounds[2].unfinished == (5, 4, 6, 2)
    assert history.rounds[3].unfinished == (2,)
    states = {task_id: task.state for task_id, task in history.tasks.items()}
    assert states == {
        1: TaskState.RUN,
        2: TaskState.SELECTED,
        3: TaskState.RUN,
        4: TaskState.RUN,
        5: TaskState.DROPPED,
        6: TaskState.CANCELLED,
    }


def test_replay__round_record__holds_what_roles_need(played: Stage) -> None:
    record = played.replay().rounds[1]
    assert [each.miner for each in record.reveals] == [each.address for each in (ALICE, BOB, CAROL)]
    assert record.winner == BOB.address
    assert record.score == 800_000
    assert record.closed
    assert record.test_key == opening_key(1)
    assert record.data_key == hashing.data_key_of(opening_key(1))
    assert set(record.commitments) == {each.address for each in (ALICE, BOB, CAROL)}
    assert [vote.oracle for vote in record.votes] == [each.address for each in ORACLES[:2]]
    assert record.reclaimed == {ALICE.address: True, BOB.address: False, CAROL.address: False}
    reveal = record.reveal_of(BOB.address)
    assert reveal is not None
    assert record.header is not None
    assert record.header.reveal_digest == reveal.digest


def test_replay__live_round__shows_the_outcome_so_far(played: Stage) -> None:
    record = played.replay().rounds[3]
    assert (record.verdict, record.winner, record.header) == (Verdict.NONE, ZERO_ADDRESS, None)
    assert len(record.votes) == 1


def test_replay__fed_one_by_one__agrees_at_every_step(played: Stage) -> None:
    replaying = Replay(PARAMETERS, CHAIN_ID, ARENA)
    for place, event in enumerate(played.events):
        replaying.feed(event)
        last = place + 1 == len(played.events)
        if last or played.events[place + 1].transaction_hash != event.transaction_hash:
            assert replaying.history() == told(played.events[: place + 1])
            assert replaying.history().findings == ()


def test_replay__nothing__is_an_empty_history() -> None:
    history = told([])
    assert history.last_header == hashing.domain_separator(CHAIN_ID, ARENA)
    assert (history.rounds, history.pool, history.findings) == ({}, (), ())


def test_replay__logs_out_of_order__are_refused(played: Stage) -> None:
    with pytest.raises(LedgerError, match="after"):
        told([played.events[1], played.events[0]])
    with pytest.raises(LedgerError, match="after"):
        told([played.events[0], played.events[0]])


def test_replay__other_arena__no_commitment_or_signature_holds(played: Stage) -> None:
    history = replay(played.events, PARAMETERS, CHAIN_ID, Address("0x" + "bB" * 20))
    rules = {finding.rule for finding in history.findings}
    assert rules == {Rule.COMMITMENT, Rule.SIGNATURE, Rule.HEADER}


# Forged histories

Forge = Callable[[list[Event]], list[Event]]


def wrong_selection(logs: list[Event]) -> list[Event]:
    """Task 4 instead of the richest, and a rolling hash that fits the lie."""
    _, selected = nth(logs, events.TaskSelected, 1)
    _, published = nth(logs, events.TaskPublished, 3)
    before = nth(logs, events.DataKeyReleased, 1)[1].pool_history
    history = hashing.pool_history(
        before, PoolChange.SELECT, 4, PUBLISHER.address, published.spec_digest, 11_000
    )
    assert selected.task_id == 3
    return altered(logs, events.TaskSelected, 1, task_id=4, pool_history=history)


def late_commit(logs: list[Event]) -> list[Event]:
    t1 = nth(logs, events.DataKeyReleased)[1].t0 + PARAMETERS.phase1
    return altered(logs, events.Committed, 2, committed_at=t1)


def commit_after_the_test_was_opened(logs: list[Event]) -> list[Event]:
    at, event = nth(logs, events.Committed, 2)
    opened, test_opened = nth(logs, events.TestOpened)
    place = {"block_number": test_opened.block_number, "transaction_hash": b"\x01"}
    moved = replace(event, **place)
    return renumbered([*logs[:at], *logs[at + 1 : opened + 1], moved, *logs[opened + 1 :]])


def forged_signature(logs: list[Event]) -> list[Event]:
    signature = bytearray(nth(logs, events.Revealed, 1)[1].signature)
    signature[10] ^= 1
    return altered(logs, events.Revealed, 1, signature=bytes(signature))


def other_manifest(logs: list[Event]) -> list[Event]:
    return altered(logs, events.Revealed, 2, manifest_digest=b"\x07" * 32)


def altered_claim(logs: list[Event]) -> list[Event]:
    return altered(logs, events.Revealed, 1, claimed_score=990_000)


def claim_below_the_minimum(logs: list[Event]) -> list[Event]:
    return altered(logs, events.Revealed, 2, claimed_score=400_000)


def altered_pool_history(logs: list[Event]) -> list[Event]:
    return altered(logs, events.TaskPublished, 2, pool_history=b"\x05" * 32)


def altered_round_pool_history(logs: list[Event]) -> list[Event]:
    return altered(logs, events.DataKeyReleased, 0, pool_history=b"\x05" * 32)


def altered_reward(logs: list[Event]) -> list[Event]:
    return altered(logs, events.TaskPublished, 0, reward=2_000_000)


def broken_link(logs: list[Event]) -> list[Event]:
    return altered(logs, events.RoundClosed, 0, header=b"\x09" * 32)


def swapped_winner(logs: list[Event]) -> list[Event]:
    return altered(logs, events.RoundClosed, 0, winner=CAROL.address)


def other_score(logs: list[Event]) -> list[Event]:
    return altered(logs, events.RoundClosed, 0, score=800_001)


def other_evidence(logs: list[Event]) -> list[Event]:
    return altered(logs, events.RoundClosed, 0, evidence_digest=b"\x03" * 32)


def closed_too_early(logs: list[Event]) -> list[Event]:
    closed_at = nth(logs, events.RoundClosed)[1].closed_at
    return altered(logs, events.RoundClosed, 0, closed_at=closed_at - 1)


def double_payment(logs: list[Event]) -> list[Event]:
    at, event = nth(logs, events.Credited)
    return renumbered([*logs[: at + 1], event, *logs[at + 1 :]])


def payment_out_of_nothing(logs: list[Event]) -> list[Event]:
    at, event = nth(logs, events.RoundClosed)
    after = next(i for i in range(at, len(logs)) if logs[i].block_number > event.block_number)
    place = (event.block_number, event.block_hash, 0, b"\x01" * 32)
    paid = events.Credited(*place, account=DAVE.address, amount=5)
    return renumbered([*logs[:after], paid, *logs[after:]])


def other_receiver(logs: list[Event]) -> list[Event]:
    return altered(logs, events.Credited, 0, account=STRANGER.address)


def missing_credit(logs: list[Event]) -> list[Event]:
    return without(logs, events.Credited)


def missing_commit(logs: list[Event]) -> list[Event]:
    return without(logs, events.Committed, 1)


def missing_reveal(logs: list[Event]) -> list[Event]:
    return without(logs, events.Revealed, 1)


def missing_vote(logs: list[Event]) -> list[Event]:
    return without(logs, events.Reported, 1)


def missing_test_key(logs: list[Event]) -> list[Event]:
    return without(logs, events.TestOpened)


def missing_closing(logs: list[Event]) -> list[Event]:
    return without(logs, events.RoundClosed)


def missing_publication(logs: list[Event]) -> list[Event]:
    return without(logs, events.TaskPublished, 1)


def missing_first_publication(logs: list[Event]) -> list[Event]:
    return without(logs, events.TaskPublished, 0)


def missing_selection(logs: list[Event]) -> list[Event]:
    return without(logs, events.TaskSelected, 0)


def missing_round(logs: list[Event]) -> list[Event]:
    return without(logs, events.DataKeyReleased, 0)


def missing_challenge(logs: list[Event]) -> list[Event]:
    return without(logs, events.Challenged)


def missing_ruling(logs: list[Event]) -> list[Event]:
    return without(logs, events.Ruled)


def missing_drop(logs: list[Event]) -> list[Event]:
    return without(logs, events.TaskDropped)


def missing_cancel(logs: list[Event]) -> list[Event]:
    return without(logs, events.TaskCancelled)


def ruling_says_unchanged(logs: list[Event]) -> list[Event]:
    return altered(logs, events.Ruled, 0, changed=False)


def foreign_vote(logs: list[Event]) -> list[Event]:
    return altered(logs, events.Reported, 0, oracle=STRANGER.address)


def second_vote(logs: list[Event]) -> list[Event]:
    return altered(logs, events.Reported, 1, oracle=ORACLES[0].address)


def vote_for_nobody(logs: list[Event]) -> list[Event]:
    return altered(logs, events.Reported, 0, winner=DAVE.address)


def wrong_data_key(logs: list[Event]) -> list[Event]:
    return altered(logs, events.DataKeyReleased, 0, data_key=b"\x02" * 32)


def wrong_test_key(logs: list[Event]) -> list[Event]:
    return altered(logs, events.TestOpened, 0, test_key=b"\x02" * 32)


def key_before_its_window(logs: list[Event]) -> list[Event]:
    t0 = nth(logs, events.DataKeyReleased)[1].t0
    return altered(logs, events.DataKeyReleased, 0, t0=t0 - 1)


def spared_bond(logs: list[Event]) -> list[Event]:
    return altered(logs, events.Reclaimed, 0, burned=False)


def reclaimed_twice(logs: list[Event]) -> list[Event]:
    at, event = nth(logs, events.Reclaimed, 1)
    return renumbered([*logs[: at + 1], event, *logs[at + 1 :]])


def closed_twice(logs: list[Event]) -> list[Event]:
    at, event = nth(logs, events.RoundClosed)
    return renumbered([*logs[: at + 1], event, *logs[at + 1 :]])


@pytest.mark.parametrize(
    ("forge", "number", "rule"),
    [
        (wrong_selection, 2, Rule.SELECTION),
        (late_commit, 1, Rule.COMMIT_TIME),
        (commit_after_the_test_was_opened, 1, Rule.COMMIT_TIME),
        (forged_signature, 1, Rule.SIGNATURE),
        (other_manifest, 1, Rule.COMMITMENT),
        (altered_claim, 1, Rule.SIGNATURE),
        (claim_below_the_minimum, 1, Rule.CLAIM),
        (altered_pool_history, 1, Rule.POOL_HISTORY),
        (altered_round_pool_history, 1, Rule.POOL_HISTORY),
        (altered_reward, 1, Rule.POOL_HISTORY),
        (broken_link, 1, Rule.HEADER),
        (swapped_winner, 1, Rule.OUTCOME),
        (other_score, 1, Rule.SCORE),
        (other_evidence, 1, Rule.EVIDENCE),
        (closed_too_early, 1, Rule.CLOSING),
        (double_payment, 1, Rule.PAYOUT),
        (payment_out_of_nothing, 1, Rule.PAYOUT),
        (other_receiver, 1, Rule.PAYOUT),
        (missing_credit, 1, Rule.PAYOUT),
        (missing_commit, 1, Rule.COMMITMENT),
        (missing_reveal, 1, Rule.VOTE),
        (missing_vote, 1, Rule.OUTCOME),
        (missing_test_key, 1, Rule.WINDOW),
        (missing_closing, 1, Rule.PAYOUT),
        (missing_publication, 1, Rule.POOL),
        (missing_first_publication, 1, Rule.SELECTION),
        (missing_selection, 1, Rule.SELECTION),
        (missing_round, 1, Rule.ROUNDS),
        (missing_challenge, 2, Rule.RULING),
        (missing_ruling, 2, Rule.OUTCOME),
        (missing_drop, 3, Rule.SELECTION),
        (missing_cancel, 1, Rule.PAYOUT),
        (ruling_says_unchanged, 2, Rule.RULING),
        (foreign_vote, 1, Rule.VOTE),
        (second_vote, 1, Rule.VOTE),
        (vote_for_nobody, 1, Rule.VOTE),
        (wrong_data_key, 1, Rule.KEYS),
        (wrong_test_key, 1, Rule.KEYS),
        (key_before_its_window, 1, Rule.WINDOW),
        (spared_bond, 1, Rule.RECLAIM),
        (reclaimed_twice, 1, Rule.RECLAIM),
        (closed_twice, 1, Rule.ROUNDS),
    ],
)
def test_replay__forged_history__names_round_and_rule(
    played: Stage, forge: Forge, number: int, rule: Rule
) -> None:
    findings = told(forge(list(played.events))).findings
    assert findings, forge.__name__
    assert (findings[0].round, findings[0].rule) == (number, rule), [str(f) for f in findings]


def test_replay__two_lies__both_are_found(played: Stage) -> None:
    logs = broken_link(missing_challenge(list(played.events)))
    found = {(finding.round, finding.rule) for finding in told(logs).findings}
    assert {(1, Rule.HEADER), (2, Rule.RULING)} <= found


def test_replay__broken_link__is_not_held_against_the_round_after(played: Stage) -> None:
    findings = told(broken_link(list(played.events))).findings
    assert [(finding.round, finding.rule) for finding in findings] == [(1, Rule.HEADER)]


def test_replay__any_event_missing__is_noticed_or_leaves_no_trace(played: Stage) -> None:
    """Only what nothing later builds on may vanish unnoticed."""
    unnoticed = set()
    for place in range(len(played.events)):
        logs = played.events[:place] + played.events[place + 1 :]
        if not told(logs).findings:
            unnoticed.add(type(played.events[place]).__name__)
    assert unnoticed == {"Reported", "Withdrawn"}


def test_finding__reads_as_a_sentence(played: Stage) -> None:
    finding = told(broken_link(list(played.events))).findings[0]
    assert str(finding).startswith("round 1, task 1: header: hashes to 0x")


def test_replay__dropped_task__owes_reward_and_burned_bond() -> None:
    stage = Stage()
    stage.publish()
    stage.now += PARAMETERS.phase2 + PARAMETERS.key_window
    stage.arena.sync(stage.call(STRANGER))
    assert stage.replay().credits[ZERO_ADDRESS] == BOND
    findings = told(altered(stage.events, events.Credited, 1, account=DAVE.address)).findings
    assert {(each.task_id, each.rule) for each in findings} == {(1, Rule.PAYOUT)}


@pytest.mark.parametrize("opened", [False, True])
def test_replay__no_outcome__burns_the_fee(opened: bool) -> None:
    stage = Stage()
    stage.publish()
    stage.release()
    if opened:
        stage.open()
    stage.finalize()
    history = stage.replay()
    assert history.findings == ()
    assert history.credits[ZERO_ADDRESS] == FEE + (0 if opened else BOND)
