"""Runs every forge test that ``test_forge.py`` does not name, so that no new file is forgotten."""

from __future__ import annotations

import subprocess

import invariants

ELSEWHERE = "Canary|Invariants|Calls|Edges|Stories|Crowds"


def test_forge__everything_else__passes() -> None:
    done = subprocess.run(
        [invariants.forge(), "test", "--no-match-contract", ELSEWHERE],
        cwd=invariants.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for contract in ("BlockReward", "Deployment", "Hints", "Records", "Refusals"):
        assert f":{contract}Test" in done.stdout
