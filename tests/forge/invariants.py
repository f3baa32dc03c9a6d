"""Play the invariants' guided players for a given number of calls, and count what they visited.

``python tests/forge/invariants.py --calls 10000000`` prints the table; 1 where an invariant broke
or a transition was visited less than 200 times. It plays in batches and, after a kill, goes on
with the batch that was not finished, as long as contracts and tests are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from pouw.chain.abi import artifact

ROOT = Path(__file__).resolve().parents[2]
VISITS = ROOT / ".build" / "visits"
FINISHED = ROOT / ".build" / "invariants.json"
SOURCES = ("contracts/**/*.sol", "tests/forge/*.sol", "foundry.toml")
CALLS_PER_RUN = 700
BATCH_CALLS = 1_000_000
MIN_VISITS = 200
ARENAS = ("ether", "token", "alone")

REFUSED: Final = """
    publish: InvalidScore RewardTooSmall WrongPayment
    topUp: NotPublisher NothingToAdd TaskNotPooled WrongPayment
    cancel: NotPublisher TaskNotPooled
    releaseDataKey: NothingSelected TooEarly WrongKey
    commit: NotLive TooLate
    openTest: NotLive TestAlreadyOpen TooEarly TooLate WrongKey
    reveal: ClaimTooLow CommitmentMismatch InvalidScore InvalidSignature NothingCommitted
    reveal: TestNotOpen TooLate WrongPayment
    report: AlreadyVoted InvalidVerdict NotOracle TestNotOpen TooEarly TooLate
    challenge: NotChallengeable
    rule: NotArbiter
    finalize: NotDecided NotLive
    reclaim: NotClosed NothingToReclaim
    withdraw: InvalidReceiver NothingToWithdraw
"""
REFUSED_WITH_ARBITER: Final = """
    challenge: TestNotOpen TooEarly TooLate WrongPayment
    rule: InvalidVerdict NotRulable TooLate
"""
EVERYWHERE: Final = {
    *("publish", "top up", "cancel", "drop", "drop and select", "sync", "release"),
    *("release closes", "commit", "overwrite", "open", "reveal", "report", "quorum", "finalize"),
    *("reclaim", "withdraw", "forced in"),
    *("close: winner", "close: winner, first", "close: no true claim", "close: invalid"),
    *("close: no reveal", "close: no vote", "close: not opened"),
    *("bond: above", "bond: not above", "bond: no true claim", "bond: invalid"),
    "bond: no outcome",
    *("reveal a copied commitment", "reveal of another round", "signature of another round"),
    *("drain empty", "drain selected", "drain key window", "drain key late", "drain phase 1"),
    *("drain not opened", "drain never opened", "drain reveals", "drain reports", "drain decided"),
}
WITH_ARBITER: Final = {
    *("challenge", "challenge outcome", "challenge missing"),
    *("rule", "rule changes", "rule on silence", "rule confirms"),
    *("close: changed", "close: confirmed", "close: silent arbiter", "close: no quorum"),
    *("drain challenges", "drain challenged", "drain ruled"),
}
OF_ONE_ARENA: Final = {
    "ether": {
        *("withdraw: PaymentFailed", "withdraw again inside", "sync inside a withdrawal"),
    },
    "token": {
        *("fee refused", "lie refused", "withdraw a lie"),
        *("sync inside a payment", "withdraw inside a payment"),
    },
    "alone": set[str](),
}


def refusals(text: str) -> set[str]:
    """``call: Error`` for every error of every line."""
    lines = [line.strip().split(": ") for line in text.strip().splitlines()]
    return {f"{call}: {error}" for call, errors in lines for error in errors.split()}


def expected(arena: str) -> set[str]:
    """Transitions, outcomes, refusals and drained states that an arena's players must reach."""
    reached = EVERYWHERE | OF_ONE_ARENA[arena] | refusals(REFUSED)
    if arena == "alone":
        return reached
    return reached | WITH_ARBITER | refusals(REFUSED_WITH_ARBITER)


def forge() -> str:
    """The platform's binary: npm's wrappers exit 0 even when tests fail."""
    binaries = sorted(ROOT.glob("node_modules/@foundry-rs/forge-*/bin/forge"))
    assert binaries, "npm ci installs forge's binary for this platform"
    return str(binaries[0])


def play(calls: int, seed: int) -> Iterator[int]:
    """Run all arenas for about ``calls`` calls together; yields how many were made so far.

    AssertionError with forge's words where an invariant breaks.
    """
    VISITS.mkdir(parents=True, exist_ok=True)
    for arena in ARENAS:
        (VISITS / arena).unlink(missing_ok=True)
    runs = -(-calls // (CALLS_PER_RUN * len(ARENAS)))
    command = [forge(), "test", "--match-contract", "InvariantsTest"]
    settings = {"FOUNDRY_INVARIANT_RUNS": str(runs), "FOUNDRY_FUZZ_SEED": hex(seed)}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as playing:
        while playing.poll() is None:
            time.sleep(0.5)
            yield sum(len(lines(arena)) for arena in ARENAS) * CALLS_PER_RUN
        said = playing.stdout.read() if playing.stdout else ""
    assert playing.returncode == 0, said


def lines(arena: str) -> list[str]:
    """What each run of an arena's players told; forge plays its last run once more."""
    told = VISITS / arena
    return list(dict.fromkeys(told.read_text().splitlines())) if told.exists() else []


def visits(arena: str) -> Counter[str]:
    """How often each transition of one arena was visited; ``calls`` is the number of calls."""
    counted: Counter[str] = Counter()
    for line in lines(arena):
        told = bytes.fromhex(line.removeprefix("0x"))
        for place in range(0, len(told), 36):
            count = int.from_bytes(told[place + 32 : place + 36], "big")
            counted[name_of(told[place : place + 32])] += count
    return counted


def name_of(word: bytes) -> str:
    """A transition's own name, or ``call: Error`` for an error's and a call's selector."""
    error = artifact().errors.get(word[:4])
    if error is None:
        return word.rstrip(b"\0").decode()
    calls = {function.selector: name for name, function in artifact().functions.items()}
    return f"{calls[word[4:8]]}: {error.name}"


def missing(counted: dict[str, Counter[str]], floor: int = MIN_VISITS) -> dict[str, dict[str, int]]:
    """Per arena the expected transitions that were visited less than ``floor`` times."""
    return {
        arena: few
        for arena in ARENAS
        if (few := {n: counted[arena][n] for n in expected(arena) if counted[arena][n] < floor})
    }


def table(counted: dict[str, Counter[str]]) -> str:
    """Visits of every transition in every arena."""
    rows = sorted({name for each in counted.values() for name in each})
    out = [f"{'':32}" + "".join(f"{arena:>12}" for arena in ARENAS)]
    out += [
        f"{name:32}" + "".join(f"{counted[arena][name] or '-':>12}" for arena in ARENAS)
        for name in rows
    ]
    return "\n".join(out)


def fingerprint() -> str:
    """Of everything that a batch depends on."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in ROOT.glob(pattern)):
        if not path.name.endswith(".t.sol") or path.name == "Invariants.t.sol":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def play_batches(calls: int) -> tuple[dict[str, Counter[str]], float]:
    """Play batch after batch until ``calls`` calls were made; visits by arena, and seconds."""
    key = fingerprint()
    kept: dict[str, Any] = json.loads(FINISHED.read_text()) if FINISHED.exists() else {}
    if kept.get("of") != key:
        kept = {"of": key, "batches": []}
    counted: dict[str, Counter[str]] = {arena: Counter() for arena in ARENAS}
    seconds, made, batches = 0.0, 0, list(kept["batches"])
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("calls", total=calls)
        for seed in itertools.count():
            if made >= calls:
                break
            if seed == len(batches):
                began = time.monotonic()
                for played in play(min(BATCH_CALLS, calls - made), seed):
                    progress.update(bar, completed=made + played)
                batch = {arena: visits(arena) for arena in ARENAS}
                batches.append({"visits": batch, "seconds": time.monotonic() - began})
                FINISHED.write_text(json.dumps({"of": key, "batches": batches}))
            for arena in ARENAS:
                counted[arena].update(batches[seed]["visits"][arena])
            seconds += batches[seed]["seconds"]
            made = sum(each["calls"] for each in counted.values())
            progress.update(bar, completed=made)
    return counted, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=BATCH_CALLS)
    counted, seconds = play_batches(parser.parse_args().calls)
    print(table(counted))
    made = sum(each["calls"] for each in counted.values())
    names = {name for each in counted.values() for name in each} - {"calls", "moves"}
    states = sum(name.startswith("drain") for name in names)
    print(f"{made:,} calls, {len(names)} transitions, {states} drained states, {seconds:.0f} s")
    few = missing(counted)
    if few:
        print(f"visited less than {MIN_VISITS} times: {few}", file=sys.stderr)
    return 1 if few else 0


if __name__ == "__main__":
    raise SystemExit(main())
