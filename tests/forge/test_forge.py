"""Runs forge, by the platform's binary: npm's wrappers exit 0 even when tests fail."""

from __future__ import annotations

import os
import subprocess

import invariants
import pytest

from pouw.chain.abi import artifact

CALLS = int(os.environ.get("INVARIANT_CALLS", "1000000"))
# Of the deployment, of the libraries: what no call of an arena answers with.
NEVER = {"InvalidParameter", "InvalidShortString", "StringTooLong", "SafeERC20FailedOperation"}


def forge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of forge in the repository, its output captured."""
    return subprocess.run(
        [invariants.forge(), *arguments],
        cwd=invariants.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_forge__calls_edges_stories_crowds__pass() -> None:
    done = forge("test", "--match-contract", "CallsTest|EdgesTest|StoriesTest|Crowds")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout


def test_forge__canary__fails_the_build() -> None:
    done = forge("test", "--match-contract", "CanaryTest")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the canary sings" in done.stdout


@pytest.mark.timeout(1800)
def test_forge__invariants__hold_and_everything_is_visited() -> None:
    for _ in invariants.play(CALLS, seed=0):
        pass
    counted = {arena: invariants.visits(arena) for arena in invariants.ARENAS}
    print(invariants.table(counted))
    assert sum(each["calls"] for each in counted.values()) >= CALLS
    assert invariants.missing(counted, min(invariants.MIN_VISITS, CALLS // 5_000)) == {}


def test_invariants__expected__every_custom_error_is_met() -> None:
    expected = set[str]().union(*(invariants.expected(arena) for arena in invariants.ARENAS))
    met = {name.rpartition(": ")[2] for name in expected}
    assert {error.name for error in artifact().errors.values()} - NEVER - met == set()
