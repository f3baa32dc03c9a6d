"""The ceilings of gas, on anvil with a small pool; `make gas` measures the large ones."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gas.table import CEILINGS, Measured, over

ROOT = Path(__file__).resolve().parents[2]
KEEPS = dict.fromkeys(CEILINGS, 1) | {
    "release data key": 1,
    "open test and select": 1,
    "first vote": 1,
    "deciding vote": 1,
    "finalize": 1,
    "round": 1,
}
POOLS = {
    f"{call} {size}{place}": 100
    for size in ("10", "1,000")
    for call, places in (
        ("publish into", (", end", ", middle", ", head")),
        ("drop and select of", ("",)),
    )
    for place in places
}
WITHIN = Measured(sizes=[10, 1_000], miners=100, ours=KEEPS | POOLS)


def test_gas__small_pools_and_round__is_below_every_ceiling(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gas", "--alone", "--miners", "5"]
    command += ["--size", "10", "--size", "30", "--out", str(tmp_path / "gas.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((tmp_path / "gas.json").read_text())
    measured = {row["call"]: row["gas"] for row in document["rows"]}
    assert {name for name in CEILINGS if measured[name] < 21_000} == set()


def test_over__everything_within__names_nothing() -> None:
    assert over(WITHIN) == []


@pytest.mark.parametrize("name", [*CEILINGS, "round"])
def test_over__gas_above_its_ceiling__names_the_call(name: str) -> None:
    (problem,) = over(replace(WITHIN, ours=WITHIN.ours | {name: 20_000_000}))
    assert problem.startswith(name)


@pytest.mark.parametrize("name", POOLS)
def test_over__pool_that_is_not_flat__names_the_call(name: str) -> None:
    assert over(replace(WITHIN, ours=WITHIN.ours | {name: 101})) == []
    (problem,) = over(replace(WITHIN, ours=WITHIN.ours | {name: 102}))
    assert "not flat" in problem
