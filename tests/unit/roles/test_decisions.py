"""The pure decisions of the roles: what to do next, given what is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pouw.ml.requests import Snapshot
from pouw.roles import miner, oracle, publisher
from pouw.roles.evidence import Judgement
from pouw.roles.submission import Submission
from pouw.roles.view import Chore, View
from pouw.types import (
    ZERO_ADDRESS,
    ZERO_WORD,
    Address,
    ArenaState,
    Parameters,
    Phase,
    Round,
    RoundNumber,
    Task,
    TaskId,
    Verdict,
)

PARAMETERS = Parameters(
    asset=ZERO_ADDRESS,
    phase1=1_000,
    key_window=100,
    reveal_window=200,
    report_window=300,
    challenge_window=0,
    ruling_window=0,
    min_reward=1,
    publisher_bond_bps=1_000,
    oracle_fee_bps=500,
    miner_bond=1,
    challenge_bond=1,
    oracles=(Address("0x" + "11" * 20),),
    threshold=1,
    arbiter=ZERO_ADDRESS,
)
T0 = 10_000
T1, T2, T3, T4 = T0 + 1_000, T0 + 1_100, T0 + 1_300, T0 + 1_600
TASK = Task(
    task_id=TaskId(1),
    publisher=ZERO_ADDRESS,
    min_score=500_000,
    round=RoundNumber(1),
    pooled=False,
    first=False,
    reward=100,
    above=TaskId(0),
    below=TaskId(0),
    spec_digest=ZERO_WORD,
    key_hash=ZERO_WORD,
)
ROUND = Round(
    number=RoundNumber(1),
    task_id=TaskId(1),
    t0=T0,
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
MINE = frozenset({TaskId(1)})
SUBMISSION = Submission(ZERO_WORD, ZERO_WORD, 10)
NOTHING = miner.Progress(None, None, None, (), 0)
WON = Judgement(Verdict.WINNER, Address("0x" + "22" * 20), (), (), "")


def live(now: int, *, opened: bool = False, confirmed: int | None = None, t0: int = T0) -> View:
    """A view with round 1 live at ``now``."""
    return View(
        now=now,
        contract_now=now,
        confirmed=now if confirmed is None else confirmed,
        parameters=PARAMETERS,
        state=ArenaState(1, 1, TaskId(0), 0, True),
        selected=None,
        round=replace(ROUND, opened=opened, t0=t0),
        task=TASK,
    )


def selected(now: int, at: int, *, confirmed: int | None = None) -> View:
    """A view with task 1 selected at ``at`` and no round."""
    return View(
        now=now,
        contract_now=now,
        confirmed=now if confirmed is None else confirmed,
        parameters=PARAMETERS,
        state=ArenaState(1, 0, TaskId(1), at, False),
        selected=TASK,
        round=None,
        task=None,
    )


def snapshot(
    step: int, dice_ppm: int, *, cases: int = 0, milliseconds: int | None = None
) -> Snapshot:
    return Snapshot(
        step=step,
        milliseconds=step if milliseconds is None else milliseconds,
        model=f"model-{step}",
        checkpoint=f"checkpoint-{step}",
        checkpoint_bytes=1,
        previous=None,
        train_loss_ppm=0,
        validation_dice_ppm=dice_ppm,
        validation_cases=cases,
    )


@pytest.mark.parametrize(
    ("now", "phase"),
    [
        (T1 - 1, Phase.PHASE1),
        (T1, Phase.OPEN),
        (T2 - 1, Phase.OPEN),
        (T2, Phase.REVEAL),
        (T3 - 1, Phase.REVEAL),
        (T3, Phase.REPORT),
        (T4 - 1, Phase.REPORT),
        (T4, Phase.DECIDED),
    ],
)
def test_phase__every_boundary__starts_included(now: int, phase: Phase) -> None:
    assert live(now, opened=True).phase is phase


def test_phase__never_opened__decided_from_t2() -> None:
    assert live(T2 - 1).phase is Phase.OPEN
    assert live(T2).phase is Phase.DECIDED


def test_publisher__key_window_confirmed__releases_the_data_key() -> None:
    opens = 5_000 + PARAMETERS.phase2
    step = publisher.Step
    assert publisher.decide(selected(opens - 1, 5_000), MINE, 0) is step.WAIT
    assert publisher.decide(selected(opens, 5_000), MINE, 0) is step.RELEASE_DATA_KEY
    assert publisher.decide(selected(opens, 5_000, confirmed=opens - 1), MINE, 0) is step.WAIT
    assert publisher.decide(selected(opens + 100, 5_000), MINE, 0) is step.SYNC
    assert publisher.decide(selected(opens, 5_000), frozenset(), 0) is step.WAIT


def test_publisher__phase_1_over__opens_the_test_set_once_confirmed() -> None:
    step = publisher.Step
    assert publisher.decide(live(T1, confirmed=T1 - 1), MINE, 0) is step.WAIT
    assert publisher.decide(live(T1), MINE, 0) is step.OPEN_TEST
    assert publisher.decide(live(T1, opened=True), MINE, 0) is step.WAIT
    assert publisher.decide(live(T1), frozenset(), 0) is step.WAIT
    assert publisher.decide(live(T4, opened=True), MINE, 0) is step.FINALIZE


def fast(view: View, seconds: int = 59) -> View:
    """The same for a machine whose clock is ahead of the chain's."""
    return replace(view, now=view.now + seconds, ahead=seconds)


def test_publisher__own_clock_ahead__releases_and_opens_until_the_contract_takes_no_key() -> None:
    opens = 5_000 + PARAMETERS.phase2
    step = publisher.Step
    assert publisher.decide(fast(selected(opens + 99, 5_000)), MINE, 0) is step.RELEASE_DATA_KEY
    assert publisher.decide(fast(selected(opens + 99, 5_000)), frozenset(), 0) is step.WAIT
    assert publisher.decide(fast(live(T2 - 1)), MINE, 0) is step.OPEN_TEST
    assert publisher.decide(fast(live(T2)), MINE, 0) is step.FINALIZE
    assert publisher.decide(fast(live(T4 - 1, opened=True)), MINE, 0) is step.WAIT


def test_miner__own_clock_ahead__commits_and_reveals_until_the_contract_takes_neither() -> None:
    better = replace(NOTHING, better=snapshot(5, 800_000))
    scored = replace(NOTHING, committed=SUBMISSION, claim_ppm=900_000)
    assert miner.decide(fast(live(T1 - 1)), better) is miner.Step.COMMIT
    assert miner.decide(fast(live(T1)), better) is miner.Step.WAIT
    assert miner.decide(fast(live(T3 - 1, opened=True)), scored) is miner.Step.REVEAL
    assert miner.decide(fast(live(T3, opened=True)), scored) is miner.Step.WAIT


def test_oracle__own_clock_ahead__reports_until_the_contract_takes_no_vote() -> None:
    def step(view: View) -> oracle.Step:
        return oracle.decide(fast(view), voted=False, outcome=WON, credit=0)

    assert step(live(T4 - 1, opened=True)) is oracle.Step.REPORT
    assert step(live(T4, opened=True)) is oracle.Step.WAIT


def test_chore__own_clock_ahead__waits_until_a_call_changes_something() -> None:
    assert fast(live(T4 + 9, opened=True)).chore(10) is None
    assert fast(selected(5_000 + PARAMETERS.phase2 + 109, 5_000)).chore(10) is None


def test_miner__better_snapshot__commits_in_phase_1_only() -> None:
    better = replace(NOTHING, better=snapshot(5, 800_000))
    assert miner.decide(live(T1 - 1), better) is miner.Step.COMMIT
    assert miner.decide(live(T1 - 1), NOTHING) is miner.Step.TRAIN
    assert miner.decide(live(T1), better) is miner.Step.WAIT


def test_miner__test_set_open__scores_then_reveals_before_t3() -> None:
    committed = replace(NOTHING, committed=SUBMISSION)
    scored = replace(committed, claim_ppm=600_000)
    assert miner.decide(live(T1), committed) is miner.Step.WAIT
    assert miner.decide(live(T1, opened=True), committed) is miner.Step.SCORE
    assert miner.decide(live(T3 - 1, opened=True), scored) is miner.Step.REVEAL
    assert miner.decide(live(T3, opened=True), scored) is miner.Step.WAIT


def test_miner__claim_below_the_minimum__does_not_reveal() -> None:
    poor = replace(NOTHING, committed=SUBMISSION, claim_ppm=TASK.min_score - 1)
    assert miner.decide(live(T2, opened=True), poor) is miner.Step.WAIT


def choose(
    snapshots: list[Snapshot], committed: Submission | None = None, *, final: bool = False
) -> Snapshot | None:
    return miner.choose_snapshot(snapshots, committed, first=False, min_score=0, final=final)


def test_choose_snapshot__validation_falls_a_little__still_takes_the_latest() -> None:
    snapshots = [snapshot(297, 783_096), snapshot(2_583, 749_880)]
    assert choose(snapshots) == snapshots[1]


def test_choose_snapshot__collapsed__is_passed_over() -> None:
    snapshots = [snapshot(10, 800_000), snapshot(20, 699_999)]
    assert choose(snapshots) == snapshots[0]


def test_choose_snapshot__committed__overwritten_once_doubled_or_final() -> None:
    assert choose([snapshot(10, 0)], SUBMISSION, final=True) is None
    assert choose([snapshot(19, 0)], SUBMISSION) is None
    assert choose([snapshot(20, 0)], SUBMISSION) == snapshot(20, 0)
    assert choose([snapshot(11, 0)], SUBMISSION, final=True) == snapshot(11, 0)


def test_choose_snapshot__first_wins__commits_once_to_what_promises_the_minimum() -> None:
    snapshots = [snapshot(5, 400_000), snapshot(6, 500_000), snapshot(7, 900_000)]
    chosen = miner.choose_snapshot(snapshots, None, first=True, min_score=500_000, final=False)
    assert chosen == snapshot(6, 500_000)
    assert (
        miner.choose_snapshot(snapshots, SUBMISSION, first=True, min_score=500_000, final=True)
        is None
    )


def choose_first(
    snapshots: list[Snapshot], committed: Submission | None = None, *, final: bool = False
) -> Snapshot | None:
    return miner.choose_snapshot(snapshots, committed, first=True, min_score=800_000, final=final)


@pytest.mark.parametrize("dice_ppm", [799_900, 0], ids=["just below", "never validated"])
def test_choose_snapshot__first_wins_and_none_promises_the_minimum__takes_the_latest_at_the_end(
    dice_ppm: int,
) -> None:
    snapshots = [snapshot(10, 0), snapshot(90, dice_ppm)]
    assert choose_first(snapshots) is None
    assert choose_first(snapshots, final=True) == snapshots[1]


def test_choose_snapshot__first_wins_and_what_is_committed_promised_nothing__is_overwritten() -> (
    None
):
    snapshots = [snapshot(10, 700_000), snapshot(20, 790_000)]
    assert choose_first(snapshots, SUBMISSION) is None
    assert choose_first(snapshots, SUBMISSION, final=True) == snapshots[1]
    good = [*snapshots, snapshot(30, 800_000), snapshot(40, 900_000)]
    assert choose_first(good, SUBMISSION) == good[2]
    assert choose_first(good, replace(SUBMISSION, step=30), final=True) is None


def test_choose_snapshot__training_fell_back__what_trained_longer_stays() -> None:
    assert choose([snapshot(4, 0), snapshot(9, 0)], SUBMISSION, final=True) is None


def test_choose_snapshot__validated_on_other_numbers_of_cases__only_like_with_like() -> None:
    """One model has 0.964 on its first validation case and 0.679 on both."""
    early, late = snapshot(100, 964_000, cases=1), snapshot(9_000, 679_000, cases=2)
    assert choose([early, late]) == late
    collapsed = snapshot(9_500, 500_000, cases=2)
    assert choose([early, late, collapsed]) == late


def test_oracle__outcome_known__reports_only_once_t3_is_confirmed() -> None:
    def step(view: View, *, voted: bool = False, outcome: Judgement | None = WON) -> oracle.Step:
        return oracle.decide(view, voted=voted, outcome=outcome, credit=0)

    assert step(live(T3, opened=True, confirmed=T3 - 1)) is oracle.Step.SCORE
    assert step(live(T3, opened=True)) is oracle.Step.REPORT
    assert step(live(T3, opened=True), outcome=None) is oracle.Step.SCORE
    assert step(live(T3, opened=True), voted=True) is oracle.Step.WAIT
    assert step(live(T4, opened=True)) is oracle.Step.WAIT


def test_oracle__no_reveal__does_not_vote() -> None:
    nothing = Judgement(Verdict.NONE, None, (), (), "")
    view = live(T3, opened=True)
    assert oracle.decide(view, voted=False, outcome=nothing, credit=0) is oracle.Step.WAIT


def test_chore__decided_or_overdue__only_after_patience() -> None:
    assert live(T4 + 9, opened=True).chore(10) is None
    assert live(T4 + 10, opened=True).chore(10) is Chore.FINALIZE
    closes = 5_000 + PARAMETERS.phase2 + PARAMETERS.key_window
    assert selected(closes + 9, 5_000).chore(10) is None
    assert selected(closes + 10, 5_000).chore(10) is Chore.SYNC
