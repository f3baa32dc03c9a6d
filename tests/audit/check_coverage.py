"""Measure which lines and branches of ``contracts/`` the forge tests reach; ``make coverage``.

Forge compiles via IR with the least optimisation that the arena needs, runs every forge test on it
and attributes instructions to lines by the source map. There a call without arguments or result has
no instruction of its own, so `_sync();` never counts as reached: those lines must say nothing else,
and mutation testing shows that each of them runs. Exit code 1: any other line or branch is missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LCOV = ROOT / ".build" / "coverage" / "lcov.info"
SETTINGS = {"FOUNDRY_FUZZ_RUNS": "64", "FOUNDRY_INVARIANT_RUNS": "4"}
WITHOUT_INSTRUCTION = "_sync();"


def measure() -> None:
    """Run forge; a failing test fails the measurement."""
    LCOV.parent.mkdir(parents=True, exist_ok=True)
    (forge,) = ROOT.glob("node_modules/@foundry-rs/forge-*/bin/forge")
    subprocess.run(
        [
            str(forge),
            *("coverage", "--ir-minimum", "--no-match-contract", "Canary|Crowds"),
            *("--report", "lcov", "--report-file", str(LCOV)),
        ],
        cwd=ROOT,
        env={**os.environ, **SETTINGS},
        check=True,
    )


def missed() -> tuple[dict[str, list[int]], dict[str, int]]:
    """Lines and branches by file that no test reached, of the contracts that are deployed."""
    lines: dict[str, list[int]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    source = ""
    for record in LCOV.read_text(encoding="utf-8").splitlines():
        kind, _, rest = record.partition(":")
        if kind == "SF":
            source = rest
        if kind not in ("DA", "BRDA") or not _deployed(source):
            continue
        fields = rest.split(",")
        counts[kind] += 1
        if fields[-1] in ("0", "-") and not _instructionless(source, int(fields[0])):
            lines[source].append(int(fields[0]))
    return lines, counts


def _deployed(source: str) -> bool:
    return source.startswith("contracts/") and not source.startswith("contracts/test/")


def _instructionless(source: str, line: int) -> bool:
    text = (ROOT / source).read_text(encoding="utf-8").splitlines()[line - 1]
    return text.strip() == WITHOUT_INSTRUCTION


def main() -> int:
    """Measure and compare with everything."""
    measure()
    lines, counts = missed()
    for source, numbers in sorted(lines.items()):
        print(f"{source}: missed in lines {', '.join(map(str, sorted(set(numbers))))}")
    total = sum(map(len, lines.values()))
    print(f"{counts['DA']} lines and {counts['BRDA']} branches of contracts/, {total} missed")
    return int(bool(lines) or not counts)


if __name__ == "__main__":
    sys.exit(main())
