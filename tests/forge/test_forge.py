"""Runs forge, by the platform's binary: npm's wrappers exit 0 even when tests fail."""

from __future__ import annotations

import os
import subprocess

import invariants
import pytest

MOVES = int(os.environ.get("INVARIANT_MOVES", "200000"))


def forge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of forge in the repository, its output captured."""
    return subprocess.run(
        [invariants.forge(), *arguments],
        cwd=invariants.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_forge__fuzz_tests__pass() -> None:
    done = forge("test", "--match-contract", "CallsTest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout


def test_forge__canary__fails_the_build() -> None:
    done = forge("test", "--match-contract", "CanaryTest")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the canary sings" in done.stdout


@pytest.mark.timeout(1800)
def test_forge__invariants__hold_and_everything_is_visited() -> None:
    done = invariants.play(MOVES)
    assert done.returncode == 0, done.stdout + done.stderr
    print(invariants.table())
    for arena in invariants.ARENAS:
        floor = min(invariants.MIN_VISITS, MOVES // 5_000)
        assert invariants.missing(arena, floor) == {}, f"rarely visited in the {arena} arena"
