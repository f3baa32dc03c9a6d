"""Play the invariants' guided players for a given number of moves, and count what they visited.

``python tests/forge/invariants.py --moves 10000000`` prints the table and exits 1 where an
invariant broke, a transition was visited less than 200 times, or a state drained less than 50.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
VISITS = ROOT / ".build" / "visits"
MOVES_PER_RUN = 150
MIN_VISITS = 200
ARENAS = ("ether", "token", "alone")

EVERYWHERE: Final = (
    "publish, top up, cancel, drop, drop and select, sync, release, release closes, commit,"
    "overwrite, open, reveal, report, quorum, finalize, reclaim, reclaim back, reclaim burned,"
    "withdraw, forced in, close: winner, close: no true claim, close: invalid, close: no vote,"
    "close: not opened, AlreadyVoted, CommitmentMismatch, InvalidSignature, InvalidVerdict,"
    "NotClosed, NotDecided, NotOracle, NotPublisher, NothingToReclaim, NothingToWithdraw,"
    "TaskNotPooled, TooEarly, TooLate, drain phase 1, drain not opened, drain reveals,"
    "drain reports, drain selected"
)
WITH_ARBITER: Final = (
    "challenge, challenge outcome, challenge missing, rule, rule changes, rule confirms,"
    "close: confirmed, close: silent arbiter, close: no quorum, NotArbiter, NotRulable,"
    "drain challenged, drain reported"
)
OF_ONE_ARENA: Final = {
    "ether": "WrongPayment, WrongKey, withdraw refused, withdraw again inside,"
    "sync inside a withdrawal",
    "token": "fee refused, lie refused, ether refused, withdraw a lie, sync inside a payment,"
    "withdraw inside a payment",
    "alone": "WrongKey, ether refused",
}


def names(text: str) -> set[str]:
    return {name.strip() for name in text.split(",")}


def expected(arena: str) -> set[str]:
    """Transitions, refusals and drained states that an arena's players must reach."""
    reached = names(EVERYWHERE) | names(OF_ONE_ARENA[arena])
    return reached if arena == "alone" else reached | names(WITH_ARBITER)


def forge() -> str:
    """The platform's binary: npm's wrappers exit 0 even when tests fail."""
    binaries = sorted(ROOT.glob("node_modules/@foundry-rs/forge-*/bin/forge"))
    assert binaries, "npm ci installs forge's binary for this platform"
    return str(binaries[0])


def play(moves: int) -> subprocess.CompletedProcess[str]:
    """Run all arenas for ``moves`` moves together."""
    VISITS.mkdir(parents=True, exist_ok=True)
    for arena in ARENAS:
        (VISITS / arena).unlink(missing_ok=True)
    runs = -(-moves // (MOVES_PER_RUN * len(ARENAS)))
    return subprocess.run(
        [forge(), "test", "--match-contract", "InvariantsTest"],
        cwd=ROOT,
        env={**os.environ, "FOUNDRY_INVARIANT_RUNS": str(runs)},
        capture_output=True,
        text=True,
        check=False,
    )


def visits(arena: str) -> Counter[str]:
    """How often each transition of one arena was visited; ``moves`` is their number."""
    errors = error_names()
    counted: Counter[str] = Counter()
    for line in (VISITS / arena).read_text().splitlines():
        word, count = (int(part) for part in line.split())
        raw = word.to_bytes(32, "big").rstrip(b"\0")
        name = "moves" if word == 0 else errors.get(raw) or raw.decode()
        counted[name] += count
    return counted


def error_names() -> dict[bytes, str]:
    """Custom errors by selector, from the package's artifact."""
    from pouw.chain.abi import artifact

    return {selector.rstrip(b"\0"): error.name for selector, error in artifact().errors.items()}


def missing(arena: str, floor: int = MIN_VISITS) -> dict[str, int]:
    """Expected transitions that were visited less than ``floor`` times."""
    counted = visits(arena)
    floors = {name: floor // 4 if name.startswith("drain") else floor for name in expected(arena)}
    return {name: counted[name] for name, least in floors.items() if counted[name] < least}


def table() -> str:
    """Visits of every transition in every arena."""
    columns = {arena: visits(arena) for arena in ARENAS}
    rows = sorted({name for counted in columns.values() for name in counted})
    lines = [f"{'':28}" + "".join(f"{arena:>12}" for arena in ARENAS)]
    lines += [
        f"{name:28}" + "".join(f"{counted[name] or '-':>12}" for counted in columns.values())
        for name in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=1_000_000)
    began = time.monotonic()
    done = play(parser.parse_args().moves)
    if done.returncode != 0:
        print(done.stdout + done.stderr)
        return 1
    print(table())
    print(f"{time.monotonic() - began:.0f} seconds")
    rare = {arena: few for arena in ARENAS if (few := missing(arena))}
    if rare:
        print(f"visited less than {MIN_VISITS} times: {rare}", file=sys.stderr)
    return 1 if rare else 0


if __name__ == "__main__":
    raise SystemExit(main())
