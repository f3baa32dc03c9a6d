"""The whole protocol on a real chain with real images, real training and real scoring."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from theatre import MINER_BOND, REWARD, OverClaimer, Theatre, play

from pouw.documents import Evidence
from pouw.hashing import raw_cid
from pouw.ledger.pruning import Keep
from pouw.roles.capacity import OracleOptions, open_scoring
from pouw.roles.content import fetch_manifest
from pouw.roles.follow import read_history
from pouw.roles.node import AuditOptions, AuditReport, Result, audit
from pouw.roles.prune import carry_out, plan
from pouw.roles.replayer import Replayer
from pouw.roles.rescoring import Problem, Rescorer
from pouw.roles.verification import VerifyOptions, verify
from pouw.storage.local import LocalStore
from pouw.types import ZERO_ADDRESS, Address, EntryState, RoundNumber, TaskId, Verdict

ROUNDS = (RoundNumber(1), RoundNumber(2))


@dataclass(frozen=True)
class Story:
    """Two rounds that were played to their end, and what a fresh node says of them."""

    theatre: Theatre
    flat: TaskId
    poor: TaskId
    rich: TaskId
    report: AuditReport


@pytest.fixture(scope="module")
def story(rpc_url: str, tmp_path_factory: pytest.TempPathFactory) -> Story:
    theatre = Theatre(rpc_url, tmp_path_factory.mktemp("theatre"))
    publisher = theatre.publisher("publisher")
    flat = theatre.publish(publisher, "flat", 2, REWARD, provenance="replay")
    poor = theatre.publish(publisher, "poor", 2, 1)
    rich = theatre.publish(publisher, "rich", 3, 2 * REWARD)
    cast = [
        publisher,
        theatre.miner("miner-long", 24),
        theatre.miner("miner-short", 3),
        theatre.miner("miner-liar", 2, OverClaimer),
        *theatre.oracles(),
    ]
    try:
        play(theatre, cast, ROUNDS[-1])
    finally:
        for member in cast:
            member.close()
    report = audit(theatre.observer("node"), AuditOptions("all"))
    return Story(theatre, flat, poor, rich, report)


def test_rounds__pool_of_two__richest_is_taken_and_poor_one_stays_unfinished(story: Story) -> None:
    taken = [story.theatre.arena.round(number).task_id for number in ROUNDS]
    assert taken == [story.flat, story.rich]
    assert story.report.rounds[1].unfinished == (story.poor,)


def test_rounds__liar_claims_most__best_true_model_is_paid(story: Story) -> None:
    liar = story.theatre.account("miner-liar").address
    for one, reward in zip(story.report.rounds, (REWARD, 2 * REWARD), strict=True):
        closed = story.theatre.arena.round(RoundNumber(one.round))
        assert closed.verdict is Verdict.WINNER
        assert closed.reveals == 3
        assert one.winner == closed.winner != liar
        assert one.measured_ppm is not None
        assert one.claim_ppm is not None
        assert one.measured_ppm >= one.claim_ppm
        # What three equal shares leave of the fee goes to the winner.
        fee = reward * 5 // 100
        assert one.paid_wei == reward - fee // 3 * 3


def test_audit__honest_history__agrees(story: Story) -> None:
    assert story.report.problems == ()
    assert [one.result for one in story.report.rounds] == [Result.TRUE, Result.TRUE]
    assert story.report.exit_code == 0


def test_provenance__winner_of_a_replay_task__trained_again_by_oracles_and_by_anybody(
    story: Story,
) -> None:
    theatre = story.theatre
    history = read_history(theatre.observer("replay"))
    record = history.rounds[ROUNDS[0]]
    for vote in record.votes:
        evidence = Evidence.parse(theatre.store.get_bytes(raw_cid(vote.evidence_digest)))
        (replay,) = evidence.provenance
        assert replay.miner == record.winner
        assert replay.same_profile
        assert [one.outcome for one in replay.segments] == ["exact"]
    found = verify(theatre.observer("verifier"), VerifyOptions(number=ROUNDS[0]))
    assert (found.fault, found.missing, found.exit_code) == (None, None, 0)
    assert found.replay is not None
    assert [one.outcome for one in found.replay.segments] == ["exact"]


def test_replay__whole_history__equals_the_contract(story: Story) -> None:
    history = read_history(story.theatre.observer("replay"))
    arena = story.theatre.arena
    assert history.findings == ()
    assert history.last_header == arena.last_header()
    assert history.pool_history == arena.pool_history()
    accounts = {*history.credits, ZERO_ADDRESS}
    assert {each: history.credits.get(each, 0) for each in accounts} == {
        each: arena.credit(each) for each in accounts
    }


def test_reclaim__liar__bond_is_burned(story: Story) -> None:
    arena, liar = story.theatre.arena, Address(story.theatre.account("miner-liar").address)
    for number in ROUNDS:
        burned = arena.credit(ZERO_ADDRESS)
        if arena.entry(number, liar).state is EntryState.REVEALED:
            arena.reclaim(number, liar)
            assert arena.credit(ZERO_ADDRESS) == burned + MINER_BOND
    history = read_history(story.theatre.observer("replay"))
    assert [history.rounds[number].reclaimed[liar] for number in ROUNDS] == [True, True]


def test_audit__one_byte_of_the_winner_changed__names_round_and_block(story: Story) -> None:
    theatre = story.theatre
    record = read_history(theatre.observer("replay")).rounds[ROUNDS[1]]
    reveal = record.reveal_of(record.winner)
    assert reveal is not None
    model = fetch_manifest(theatre.store, reveal.manifest_digest).model
    path = theatre.store.path_of(model.cid)
    whole = path.read_bytes()
    try:
        path.chmod(0o644)
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        report = audit(theatre.observer("doubter"), AuditOptions(first=ROUNDS[1]))
    finally:
        path.write_bytes(whole)
    assert report.exit_code == 2
    one = report.rounds[0]
    assert (one.round, one.result) == (2, Result.FALSE)
    assert [problem.cid for problem in one.problems] == [model.cid]


def test_audit__manifest_gone__not_recheckable(story: Story) -> None:
    theatre = story.theatre
    record = read_history(theatre.observer("replay")).rounds[ROUNDS[0]]
    reveal = record.reveal_of(record.winner)
    assert reveal is not None
    path = theatre.store.path_of(raw_cid(reveal.manifest_digest))
    kept = path.rename(path.with_suffix(".kept"))
    try:
        report = audit(theatre.observer("late"))
    finally:
        kept.rename(path)
    assert report.exit_code == 3
    assert report.rounds[0].result is Result.NOT_RECHECKABLE
    assert report.rounds[1].result is Result.TRUE


def test_prune__best__leaves_an_audit_that_says_what_it_cannot_rescore(
    story: Story, tmp_path: Path
) -> None:
    shutil.copytree(story.theatre.store.directory, tmp_path / "store")
    store = LocalStore(tmp_path / "store")
    observer = replace(story.theatre.observer("pruner"), store=store)
    planned = plan(observer, Keep.BEST, 10_000)
    assert planned.blocks is None
    assert len(planned.models) > sum(one.retention.kept for one in planned.models) == len(ROUNDS)
    assert planned.freed_bytes > 0
    assert all(store.has(cid) for one in planned.models for cid in one.cids)

    done = carry_out(observer, planned, lambda: store.gc(grace_seconds=-1))

    assert done.blocks
    assert not any(store.has(cid) for one in planned.models for cid in one.cids)
    assert audit(observer).exit_code == 0
    report = audit(observer, AuditOptions("all"))
    assert report.exit_code == 3
    problems = [problem for one in report.rounds for problem in one.problems]
    assert problems
    assert not any(problem.recheckable for problem in problems)
    assert plan(observer, Keep.BEST, 10_000).freed_bytes == 0


def forged(story: Story, number: RoundNumber, **change: int | bytes) -> tuple[Problem, ...]:
    """What rescoring finds once the winner's reveal of a round was changed."""
    theatre = story.theatre
    observer = theatre.observer("auditor")
    record = read_history(observer).rounds[number]
    reveals = tuple(
        replace(one, **change) if one.miner == record.winner else one for one in record.reveals
    )
    scoring = open_scoring(OracleOptions(), observer.home)
    replayer = Replayer(observer.home / "provenance.log")
    try:
        rescorer = Rescorer(observer, observer.home, scoring, replayer)
        return rescorer.recheck(replace(record, reveals=reveals), "winners").problems
    finally:
        scoring.end()
        replayer.end()


def test_rescore__committee_paid_a_false_claim__is_a_lie(story: Story) -> None:
    (problem,) = forged(story, ROUNDS[0], claim=1_000_000)
    assert (problem.rule, problem.recheckable) == ("score", True)
    assert "claimed 1000000, measured" in problem.detail


def test_rescore__a_little_below_the_claim__is_marginal_and_no_lie(story: Story) -> None:
    one = story.report.rounds[0]
    assert one.measured_ppm is not None
    assert forged(story, ROUNDS[0], claim=one.measured_ppm + 999) == ()
    assert len(forged(story, ROUNDS[0], claim=one.measured_ppm + 1_000)) == 1


def test_rescore__somebody_elses_model__is_a_lie(story: Story) -> None:
    record = read_history(story.theatre.observer("auditor")).rounds[ROUNDS[0]]
    other = next(one for one in record.reveals if one.miner != record.winner)
    (problem,) = forged(story, ROUNDS[0], manifest_digest=other.manifest_digest)
    assert problem == Problem("manifest", f"it is {other.miner}'s")
