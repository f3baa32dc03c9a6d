"""What a claim leaves off follows from a measurement that is kept in the repository."""

from __future__ import annotations

import json

from benchmarks.score_noise import ENOUGH, RESULTS, SETTINGS, Scored, difference, margin_ppm
from pouw.roles.trainer import MinerOptions


def test_margin__by_default__is_what_the_recorded_noise_asks_for() -> None:
    recorded = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert recorded["models"] >= ENOUGH
    assert set(recorded["differences"]) == {setting.name for setting in SETTINGS[1:]}
    assert MinerOptions().margin_ppm == margin_ppm(recorded["differences"])


def test_margin__of_float32__is_ten_times_the_largest_and_never_below_a_voxel() -> None:
    def measured(float32: int, bfloat16: int) -> dict[str, dict[str, float]]:
        return {
            "float32, 2 threads": {"max_ppm": 0},
            "float32, no such kernel": {"max_ppm": float32},
            "bfloat16, 1 thread": {"max_ppm": bfloat16},
        }

    assert margin_ppm(measured(float32=33, bfloat16=2_000)) == 330
    assert margin_ppm(measured(float32=0, bfloat16=2_000)) == 100


def test_difference__of_scores_and_counts__is_counted_by_hand() -> None:
    reference = {
        "a": Scored(800_000, (80, 10, 20)),
        "b": Scored(500_000, (50, 0, 50)),
        "c": Scored(500_000, (50, 0, 50)),
    }
    other = reference | {"a": Scored(790_000, (79, 11, 21)), "b": Scored(500_000, (50, 1, 50))}
    assert difference(reference, other) == {
        "changed": 2,
        "median_ppm": 0,
        "p99_ppm": 0,
        "max_ppm": 10_000,
        "voxels_max_ppm": 30_000.0,
    }
    assert difference(reference, reference)["changed"] == 0
