from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pouw.ml.planning import (
    PlanningPolicy,
    StepPlanner,
    block_seconds,
    budget_fraction_ppm,
    insurance_seconds,
    last_call_seconds,
    whole_epochs,
)

POLICY = PlanningPolicy(safety_ppm=2_000_000, reserve_ms=50)

durations = st.floats(min_value=1.0, max_value=2.0, allow_nan=False)


@settings(deadline=None)
@given(
    budget=st.floats(min_value=0, max_value=60_000),
    step_ms=st.floats(min_value=1, max_value=500),
    closing_ms=st.floats(min_value=1, max_value=1_000),
    jitter=st.lists(durations, min_size=1, max_size=50),
    every=st.integers(min_value=1, max_value=40),
)
def test_planner__jitter_within_the_safety_factor__never_passes_the_deadline(
    budget: float, step_ms: float, closing_ms: float, jitter: list[float], every: int
) -> None:
    planner = StepPlanner(budget, POLICY)
    now, steps = 0.0, 0
    while planner.allows_step(now):
        taken = step_ms * jitter[steps % len(jitter)]
        now, steps = now + taken, steps + 1
        planner.observe_step(taken)
        if steps % every == 0 and planner.allows_snapshot(now):
            taken = closing_ms * jitter[-(steps % len(jitter)) - 1]
            now += taken
            planner.observe_closing(taken)
    if steps:
        now += closing_ms * 2.0
        assert now <= budget - POLICY.reserve_ms


@settings(deadline=None)
@given(step_ms=st.floats(min_value=1, max_value=100), budget=st.integers(5_000, 20_000))
def test_planner__steady_steps__wastes_at_most_the_expected_step_and_closing(
    step_ms: float, budget: int
) -> None:
    planner = StepPlanner(budget, POLICY)
    planner.observe_closing(100)
    now = 0.0
    while planner.allows_step(now):
        now += step_ms
        planner.observe_step(step_ms)
    assert budget - now <= POLICY.reserve_ms + 200 + 2 * step_ms + 1e-6


def test_planner__one_slow_step_among_many__does_not_frighten_it() -> None:
    planner = StepPlanner(10_000)
    planner.observe_closing(100)
    for milliseconds in [3_000] + [10] * 60:
        planner.observe_step(milliseconds)
    assert planner.allows_step(8_750)


def test_planner__late_snapshot__not_allowed_where_the_last_one_would_not_fit() -> None:
    planner = StepPlanner(10_000, POLICY)
    planner.observe_closing(1_000)
    planner.observe_step(10)
    assert planner.allows_step(7_900)
    assert planner.allows_snapshot(5_900)
    assert not planner.allows_snapshot(6_000)


def test_budget_fraction__before_within_after__stays_in_ppm() -> None:
    assert budget_fraction_ppm(0, 100, 300) == 0
    assert budget_fraction_ppm(150, 100, 300) == 250_000
    assert budget_fraction_ppm(400, 100, 300) == 1_000_000
    assert budget_fraction_ppm(100, 100, 100) == 1_000_000


def test_whole_epochs__paper_rule__floors_what_is_left() -> None:
    assert whole_epochs(3_000, now_ms=3_000, stop_at_ms=11_999) == 2
    assert whole_epochs(3_000, now_ms=3_000, stop_at_ms=12_000) == 3
    assert whole_epochs(3_000, now_ms=13_000, stop_at_ms=12_000) == 0
    with pytest.raises(ValueError, match="takes time"):
        whole_epochs(0, 0, 1)


def test_block_seconds__some_missed_slots__is_the_usual_gap() -> None:
    timestamps = [12 * slot for slot in range(40) if slot != 17]
    assert block_seconds(timestamps) == 12
    assert block_seconds([1_000]) == block_seconds([]) == 0


@pytest.mark.parametrize("seconds", [0.25, 1, 2, 12, 15])
def test_last_call__any_chain__a_block_fits_between_it_and_t1(seconds: float) -> None:
    assert last_call_seconds(seconds) > seconds
    assert last_call_seconds(seconds) >= 8
    assert insurance_seconds(seconds) >= 3 * seconds


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), block=st.sampled_from([1_000.0, 12_000.0]))
def test_planner__half_hour_of_blocks__idles_little(seed: int, block: float) -> None:
    random = Random(seed)
    stop = 1_800_000 - 1_000 * last_call_seconds(block / 1_000)
    planner = StepPlanner(stop)
    now = stop - 20_000.0
    for _ in range(12):
        planner.observe_closing(random.uniform(300, 600))
    while planner.allows_step(now):
        step = random.uniform(80, 120)
        now += step
        planner.observe_step(step)
    assert 1_800_000 - now < 18_000
    assert now + 600 < stop
