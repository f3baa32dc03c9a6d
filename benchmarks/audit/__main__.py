"""``python -m benchmarks.audit``: the same history read and audited on two paths.

Ours: raw ``eth_getLogs``, own decoding, the node's index. Theirs: web3.py's
``contract.events.X().get_logs()`` for every event, then the same replay. Signatures are recovered
by coincurve in both. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.progress import track
from web3 import HTTPProvider, Web3

from benchmarks.audit.history import PARAMETERS, log_on
from benchmarks.gas.anvil import anvil, compile_contracts
from pouw import events
from pouw.chain.abi import artifact
from pouw.chain.index import EventIndex
from pouw.chain.ranges import read_events
from pouw.chain.reading import ArenaReader
from pouw.chain.rpc import Endpoint
from pouw.events import Event
from pouw.ledger.history import RoundRecord
from pouw.ledger.replay import Replay
from pouw.types import Address, Verdict

ROOT = Path(__file__).resolve().parents[2]
ABI = json.loads((ROOT / "pouw" / "chain" / "artifacts" / "PoUW.json").read_text())["abi"]
GOAL_READING, GOAL_AUDIT = 40, 10


def replayed(reader: ArenaReader, found: Any) -> int:
    """Closed rounds of an honest history, none of which is kept."""
    closed = 0

    def count(_: RoundRecord) -> None:
        nonlocal closed
        closed += 1

    replaying = Replay(PARAMETERS, reader.chain_id, reader.address, count)
    for event in found:
        replaying.feed(event)
    findings = replaying.history().findings
    assert not findings, str(findings[0])
    return closed


def audit_by_index(reader: ArenaReader, last: int) -> int:
    """The node's way: index, then replay from it."""
    with tempfile.TemporaryDirectory() as folder:
        index = EventIndex(Path(folder), reader, 0)
        index.sync(reader.endpoint.block_number() - last + 1)
        rounds = replayed(reader, index.events())
        index.close()
    return rounds


def read_by_web3(url: str, address: Address, last: int) -> list[Event]:
    """web3.py's own reading and decoding, as our records and in the chain's order."""
    web3 = Web3(HTTPProvider(url, request_kwargs={"timeout": 600}))
    contract = web3.eth.contract(address=Web3.to_checksum_address(address), abi=ABI)
    found: list[Event] = []
    for layout in artifact().events.values():
        kind = getattr(events, layout.name, None)
        if kind is None:  # OpenZeppelin's EIP712DomainChanged, which is never emitted
            continue
        names = [name for name, _ in (*layout.indexed, *layout.data)]
        for log in contract.events[layout.name]().get_logs(from_block=0, to_block=last):
            values = [log["args"][name] for name in names]
            if "verdict" in names:
                values[names.index("verdict")] = Verdict(values[names.index("verdict")])
            place = (log["blockNumber"], bytes(log["blockHash"]), log["logIndex"])
            found.append(kind(*place, bytes(log["transactionHash"]), *values))
    found.sort(key=lambda event: event.position)
    return found


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    begun = time.perf_counter()
    result = act()
    return time.perf_counter() - begun, result


def measure_child(url: str, address: str, last: int) -> dict[str, Any]:
    """The whole audit in a process of its own: seconds, and how much memory it took on top."""
    command = [sys.executable, "-m", "benchmarks.audit", "--child", url, address, str(last)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def peak_kb() -> int:
    """The most memory this process ever held; `ru_maxrss` would count what its parent held."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def child(url: str, address: str, last: int) -> None:
    """The process of `measure_child`."""
    reader = ArenaReader(Endpoint.connect(url, timeout_seconds=600), Address(address))
    reader.endpoint.chain_id()
    artifact()
    before = peak_kb()
    seconds, rounds = timed(lambda: audit_by_index(reader, last))
    grown = peak_kb() - before
    print(json.dumps({"seconds": seconds, "rounds": rounds, "grown_mb": round(grown / 1024, 1)}))


@dataclass(frozen=True, slots=True)
class Beside:
    """One repetition: how much faster, and logs a second."""

    reading: float
    own_rate: float
    web3_rate: float
    audit: float


def compare(reader: ArenaReader, url: str, last: int) -> Beside:
    """Both paths over the same blocks; they must find the same."""
    ours, found = timed(lambda: read_events(reader.endpoint, reader.address, 0, last))
    theirs, same = timed(lambda: read_by_web3(url, reader.address, last))
    replay, rounds = timed(lambda: replayed(reader, same))
    audit, as_many = timed(lambda: audit_by_index(reader, last))
    assert found == same
    assert rounds == as_many
    logs = len(found)
    return Beside(theirs / ours, logs / ours, logs / theirs, (theirs + replay) / audit)


def main() -> int:
    """Log, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=1_000, help="rounds that web3.py reads, too")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--child", nargs=3, metavar=("URL", "ADDRESS", "LAST"))
    arguments = parser.parse_args()
    if arguments.child:
        url, address, last = arguments.child
        child(url, address, int(last))
        return 0
    sample = min(arguments.sample, arguments.rounds)
    with anvil() as chain:
        url = chain.url
        echo = chain.deploy(compile_contracts("Echo")["Echo"]).address
        first = int(chain.ask("eth_blockNumber"), 16)
        logging = log_on(chain, echo, arguments.rounds)
        logs = sum(track(logging, "log", arguments.rounds, disable=not sys.stderr.isatty()))
        reader = ArenaReader(Endpoint.connect(url, timeout_seconds=600), echo)
        beside = [compare(reader, url, first + sample) for _ in range(arguments.repeat)]
        small = measure_child(url, echo, first + sample)
        whole = measure_child(url, echo, first + arguments.rounds)
    result = {
        "benchmark": "audit",
        "rounds": arguments.rounds,
        "logs": logs,
        "reading_ratio": round(median(one.reading for one in beside), 1),
        "own_logs_per_second": round(median(one.own_rate for one in beside)),
        "web3_logs_per_second": round(median(one.web3_rate for one in beside)),
        "audit_ratio": round(median(one.audit for one in beside), 1),
        "whole_audit_seconds": round(whole["seconds"], 2),
        "memory_grown_mb": {one["rounds"]: one["grown_mb"] for one in (small, whole)},
    }
    print(f"reading and decoding: {result['reading_ratio']} times web3.py (goal {GOAL_READING})")
    print(f"whole audit: {result['audit_ratio']} times web3.py's path (goal {GOAL_AUDIT})")
    grown = ", ".join(f"{one['grown_mb']} MB for {one['rounds']:,}" for one in (small, whole))
    print(f"memory that the whole audit takes on top: {grown} rounds (goal: the same)")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
