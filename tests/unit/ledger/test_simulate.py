from __future__ import annotations

import numpy as np
import pytest

from pouw.ledger.simulate.curve import LearningCurve, Point, fit, measured_points, resampled
from pouw.ledger.simulate.double_spend import (
    Estimate,
    Honest,
    Plan,
    attacks,
    chance_per_task,
    double_spend,
    double_spend_by_hash,
    double_spend_by_hash_exact,
    even_share,
)
from pouw.ledger.simulate.load import Load, LoadPlay
from pouw.ledger.simulate.selection import selection

CURVE = LearningCurve(0.9, 0.5, 0.5, 0.05, 0.3, 16, 1024)
FLAT = LearningCurve(0.9, 0.0, 0.5, 0.01, 0.0, 1, 1024)
"""More steps change nothing: only the number of draws counts."""


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


def test_fit__points_of_a_known_curve__finds_it(random: np.random.Generator) -> None:
    points = [
        Point(steps, CURVE.mean(steps) + CURVE.spread(steps) * random.normal())
        for steps in (16, 32, 64, 128, 256, 512, 1024)
        for _ in range(400)
    ]
    found = fit(points)
    for steps in (16, 100, 1024):
        assert found.mean(steps) == pytest.approx(CURVE.mean(steps), abs=0.004)
        assert found.spread(steps) == pytest.approx(CURVE.spread(steps), rel=0.1)


def test_fit__our_own_trainings__rise_with_compute_and_stay_a_dice() -> None:
    points = measured_points()
    assert len(points) >= 70
    curve = fit(points)
    assert 0 < curve.mean(curve.least_steps) < curve.mean(curve.most_steps) < curve.ceiling <= 1
    for steps in {point.steps for point in points}:
        own = [point.dice for point in points if point.steps == steps]
        assert curve.mean(steps) == pytest.approx(np.mean(own), abs=0.02)


def test_curve__beyond_what_was_measured__stays_as_it_is() -> None:
    assert CURVE.mean(1) == CURVE.mean(16)
    assert CURVE.mean(10**9) == CURVE.mean(1024)


def test_resampled__same_lengths__another_curve(random: np.random.Generator) -> None:
    points = measured_points()
    other = resampled(points, random)
    assert other != fit(points)
    assert (other.least_steps, other.most_steps) == (16, 1024)


def test_best_of__many_trainings__is_the_largest_of_them(random: np.random.Generator) -> None:
    drawn = CURVE.mean(64) + CURVE.spread(64) * random.normal(size=(20_000, 25))
    best = CURVE.best_of(random, 64, 25, 20_000)
    assert best.mean() == pytest.approx(drawn.max(axis=1).mean(), abs=5e-4)
    assert best.std() == pytest.approx(drawn.max(axis=1).std(), rel=0.05)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_chance__compute_does_not_pay__is_the_share_of_draws(
    share: float, random: np.random.Generator
) -> None:
    # On a flat curve he splits his compute into single steps, the honest spend 64 on each model.
    honest = Honest(miners=10, steps=64)
    draws = 2 ** int(np.log2(share / (1 - share) * 10 * 64))
    chance = chance_per_task(FLAT, share, honest, random)
    assert chance == pytest.approx(draws / (draws + 10), abs=0.01)


def test_chance__one_against_one__equal_compute_wins_half(random: np.random.Generator) -> None:
    steep = LearningCurve(0.9, 0.8, 0.5, 0.01, 0.0, 16, 1024)
    assert chance_per_task(steep, 0.5, Honest(1, 256), random) == pytest.approx(0.5, abs=0.01)


def test_chance__honest_compute_spread_thin__less_than_half_wins(
    random: np.random.Generator,
) -> None:
    assert even_share(CURVE, Honest(1, 64), 1) > even_share(CURVE, Honest(10, 64), 1)
    assert chance_per_task(CURVE, 0.4, Honest(10, 64), random) > 0.5


@pytest.mark.parametrize(("share", "confirmations"), [(0.1, 1), (0.25, 3), (0.4, 6), (0.3, 1)])
def test_by_hash__simulated__agrees_with_the_closed_form(
    share: float, confirmations: int, random: np.random.Generator
) -> None:
    found = double_spend_by_hash(share, confirmations, 20_000, random)
    exact = double_spend_by_hash_exact(share, confirmations)
    assert found.value == pytest.approx(exact, abs=0.012)


def test_by_hash_exact__nakamotos_setting__is_rosenfelds_table() -> None:
    # Rosenfeld 2014, table 1: q = 10 %, n = 2 and 6; q = 30 %, n = 6.
    assert double_spend_by_hash_exact(0.1, 2) == pytest.approx(0.05600, abs=5e-5)
    assert double_spend_by_hash_exact(0.1, 6) == pytest.approx(0.00059, abs=5e-6)
    assert double_spend_by_hash_exact(0.3, 6) == pytest.approx(0.15645, abs=5e-5)
    assert double_spend_by_hash_exact(0.5, 6) == 1.0


def test_double_spend__one_confirmation__is_the_gamblers_ruin(random: np.random.Generator) -> None:
    # From a step up or down, then back to even: p + (1 - p) * p / (1 - p) = 2 p.
    found = double_spend(0.3, 1, 40_000, random)
    assert found.low - 0.005 <= 0.6 <= found.high + 0.005


def test_double_spend__more_confirmations__fewer_successes(random: np.random.Generator) -> None:
    rates = [double_spend(0.4, z, 20_000, random).value for z in (1, 6, 24)]
    assert rates == sorted(rates, reverse=True)
    assert double_spend(0.5, 6, 2_000, random).value > 0.9


def test_estimate__no_success__still_has_an_upper_bound() -> None:
    estimate = Estimate.of(0, 1_000)
    assert (estimate.value, estimate.low) == pytest.approx((0.0, 0.0))
    assert 0.003 < estimate.high < 0.005


def test_attacks__same_seed__same_result() -> None:
    plan = Plan((0.2, 0.5), (1, 10), 64, 6, trials=500, refits=3, seed=5)
    one, two = (attacks(measured_points(), plan) for _ in range(2))
    assert one == two
    assert [(each.miners, each.share) for each in one] == [(1, 0.2), (1, 0.5), (10, 0.2), (10, 0.5)]
    assert all(each.success.low <= each.success.value <= each.success.high for each in one)


def test_load__played_twice__ends_the_same_and_in_order() -> None:
    load = Load(tasks=12_000, miners=50, tasks_a_block=100, miners_a_round=5)
    one, two = (LoadPlay(load, np.random.default_rng(3)).run() for _ in range(2))
    assert one == two
    assert one.rounds == 120
    assert one.reorganised_blocks > 0
    cancelled = 120 * 2
    assert one.pooled == 12_000 - one.rounds - cancelled


def test_load__undone_blocks__leave_nothing_behind() -> None:
    load = Load(tasks=1_000, miners=10, tasks_a_block=100, miners_a_round=3)
    play = LoadPlay(load, np.random.default_rng(3))
    for _ in range(3):
        play._play_block()
    before = (play._history, list(play._pool), list(play._headers), play._rewards[:])
    play._play_block()
    play._play_block()
    for block in reversed(play._blocks[-2:]):
        for change in reversed(block.changes):
            play._undo(change)
        play._history = block.history
        del play._headers[block.rounds :]
    assert (play._history, list(play._pool), list(play._headers)) == before[:3]


def test_selection__light_load__serves_all(random: np.random.Generator) -> None:
    tenths = selection(0.5, 1_000, 100, 5, random)
    assert [one.tenth for one in tenths] == list(range(1, 11))
    assert all(one.served > 0.99 for one in tenths)


def test_selection__twice_what_can_be_run__serves_the_richer_half(
    random: np.random.Generator,
) -> None:
    tenths = selection(2.0, 2_000, 100, 5, random)
    assert tenths[0].served < 0.01
    assert tenths[9].served > 0.99
    assert tenths[9].wait_rounds == pytest.approx(1, abs=1)
    assert [one.served for one in tenths] == sorted(one.served for one in tenths)
