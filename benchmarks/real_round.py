"""A real round on real data: publish a folder as it is, train through Phase 1, score, pay, audit.

``python -m benchmarks.real_round`` plays one round on anvil for each of the folders below
``POUW_DATA`` (default ``../shared/data``) that ``--data`` names: hippocampus (3D MR) and nuclei-he
(2D colour histology). Everything is a command line of its own process: ``pouw deploy``,
``publisher publish``, ``publisher run``, ``miner run`` on ``--threads`` threads, ``oracle run`` and
``node audit``, whose own measurement is the Dice that is printed, beside what the best intensity
threshold reaches on the same test set. The last line is one line of JSON; exit code 1 where a round
has no winner, the audit finds something, or the model is no better than the threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from eth_account import Account
from numpy.typing import NDArray

from pouw.chain.accounts import dev_account
from pouw.chain.reading import ArenaReader
from pouw.chain.rpc import Endpoint
from pouw.cli.demo.children import Children, pouw
from pouw.errors import ChainUnavailable, ConfigError, ProcessError
from pouw.ml.brain import threshold_baseline_ppm
from pouw.ml.data import Case, Dataset, load_case, read_dataset
from pouw.ml.dice import case_counts, score_ppm
from pouw.roles.view import read_view
from pouw.types import Address, RoundNumber, Verdict

ROOT: Final = Path(__file__).resolve().parents[1]
DATA: Final = Path(os.environ.get("POUW_DATA", ROOT / ".." / "shared" / "data"))
SETS: Final = {
    "hippocampus": ("MR", "CC BY-SA 4.0", "Medical Segmentation Decathlon, arXiv:1902.09063"),
    "nuclei-he": ("histology", "CC0", "Caicedo et al., Nature Methods 16 (2019) 1247: BBBC038"),
}
# Seconds; the data is sealed and fetched before, so that Phase 1 is training alone.
KEY, REVEAL, REPORT = 20, 60, 60
PEOPLE: Final = ("bank", "publisher", "miner", "oracle")
PASSWORD: Final = "play money"  # noqa: S105 - of accounts that every anvil gives away
CUTS: Final = 256


@dataclass(frozen=True, slots=True)
class Played:
    """One round: ``dice_ppm`` is the audit's own measurement, ``threshold_ppm`` the baseline's."""

    data: str
    phase1_seconds: int
    threads: int
    network: str
    patch: list[int]
    train_cases: int
    test_cases: int
    steps: int
    claim_ppm: int
    dice_ppm: int
    threshold_ppm: int
    audit: str


class Arena:
    """One arena on the chain, with a home for everybody below ``folder``."""

    def __init__(self, folder: Path, rpc: str, children: Children, phase1: int) -> None:
        self.folder = folder
        self.rpc = rpc
        self.children = children
        for number, name in enumerate(PEOPLE):
            home = folder / name
            home.mkdir(parents=True)
            keystore = Account.encrypt(dev_account(number).key, PASSWORD, iterations=1024)
            (home / "account.json").write_text(json.dumps(keystore))
            (home / "password").write_text(PASSWORD + "\n")
            self._configure(name, [])
        oracle = str(dev_account(PEOPLE.index("oracle")).address)
        words = ["deploy", "--oracle", oracle, "--phase1", str(phase1)]
        for window, seconds in (("key", KEY), ("reveal", REVEAL), ("report", REPORT)):
            words += [f"--{window}-window", str(seconds)]
        deployed = self.run("bank", *words)
        lines = [f'arena = "{deployed["arena"]}"', f"from_block = {deployed['from_block']}"]
        for name in (*PEOPLE, "node"):
            self._configure(name, lines)
        self.reader = ArenaReader.open(rpc, Address(deployed["arena"]))

    def _configure(self, name: str, lines: list[str]) -> None:
        (self.folder / name).mkdir(exist_ok=True)
        own = [f'rpc = "{self.rpc}"', "confirmations = 1", "home = '.'", "store = '../store'"]
        if name != "node":
            own += ["keystore = 'account.json'", "password_file = 'password'"]
        (self.folder / name / "pouw.toml").write_text("\n".join([*own, *lines]) + "\n")

    def run(self, name: str, *words: str, accept: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """What a command of that person prints."""
        _, text = self.children.run(
            f"{self.folder.name}-{name}-{words[0]}",
            pouw(*words, "--json"),
            cwd=self.folder / name,
            accept=accept,
            timeout_seconds=1200,
        )
        document: dict[str, Any] = json.loads(text)
        return document

    def start(self, name: str, *words: str) -> None:
        """A role of that person, until the round is over."""
        self.children.start(
            f"{self.folder.name}-{name}",
            pouw(*words, "run", "--while-stdin-open"),
            cwd=self.folder / name,
        )


def play(arena: Arena, name: str, phase1: int, threads: int) -> Played:
    """One round on that data set; ProcessError where it does not come to its end."""
    modality, licence, citation = SETS[name]
    say(f"{name}: publish")
    arena.run(
        "publisher",
        *("publisher", "publish", str((DATA / name).resolve()), "--title", name),
        *("--reward", "1ether", "--minimum", "0.01", "--data-will-be-public"),
        *("--modality", modality, "--licence", licence, "--citation", citation),
    )
    arena.start("publisher", "publisher")
    arena.start("oracle", "oracle")
    miner = ["miner", "run", "--while-stdin-open", "--threads", str(threads), "--device", "cpu"]
    arena.children.start(f"{name}-miner", pouw(*miner), cwd=arena.folder / "miner")
    follow(arena, name, phase1)
    names = [f"{name}-{one}" for one in ("publisher", "oracle", "miner")]
    arena.children.end(*names)
    report = arena.run("node", "node", "audit", "--rescore", "winners", accept=(0, 2, 3))
    return outcome(arena, name, (phase1, threads), report)


def follow(arena: Arena, name: str, phase1: int) -> None:
    """Wait until round 1 is closed, saying in which phase it is."""
    said, patience = "", time.monotonic() + phase1 + 4 * (KEY + REVEAL + REPORT) + 120
    while not (arena.reader.state().rounds and arena.reader.round(RoundNumber(1)).closed):
        arena.children.check()
        if time.monotonic() > patience:
            raise ProcessError(f"{name}: the round did not close", hint=f"see {arena.folder}")
        view = read_view(arena.reader, 1)
        if view.phase != said:
            said = view.phase
            say(f"{name}: {said}")
        time.sleep(1)


def outcome(arena: Arena, name: str, how: tuple[int, int], report: dict[str, Any]) -> Played:
    """The round in numbers, from the audit and from what the miner opened."""
    closed = arena.reader.round(RoundNumber(1))
    (row,) = report["rounds"]
    if closed.verdict is not Verdict.WINNER or row["measured_ppm"] is None:
        raise ProcessError(f"{name}: {closed.verdict.name}, no measured winner")
    task = arena.folder / "miner" / "tasks" / "1"
    train, test = read_dataset(task / "train"), read_dataset(task / "test")
    request = json.loads((arena.folder / "miner" / "rounds" / "1" / "request.json").read_text())
    finished = json.loads((arena.folder / "miner" / "rounds" / "1" / "finished.json").read_text())
    spec = request["spec"]
    return Played(
        data=name,
        phase1_seconds=how[0],
        threads=how[1],
        network=spec["network"]["name"],
        patch=spec["inference"]["patch"],
        train_cases=len(train.train),
        test_cases=len(test.test),
        steps=finished["step"],
        claim_ppm=row["claim_ppm"],
        dice_ppm=row["measured_ppm"],
        threshold_ppm=threshold_ppm(train, test),
        audit="ok" if report["exit_code"] == 0 else "problems",
    )


def threshold_ppm(train: Dataset, test: Dataset) -> int:
    """The test score of fixed intensity thresholds that fit the training cases best.

    Two in the one channel of a data set with three labels; else one in the best channel, above or
    below which everything is foreground.
    """
    if len(train.labels) == 3:
        both = Dataset(train.root, train.channels, train.labels, train.train, test.test)
        return threshold_baseline_ppm(both)
    cases = [load_case(file, 2) for file in train.train]
    tests = [load_case(file, 2) for file in test.test]
    _, channel, cut, above = max(
        fit
        for channel in range(len(train.channels))
        for above in (True, False)
        for fit in fits(cases, channel, above=above)
    )
    counts = []
    for case in tests:
        assert case.label is not None
        inside: NDArray[np.bool_] = (case.image[channel] >= cut) == above
        counts.append(case_counts(inside.astype(np.uint8), case.label, 2))
    return score_ppm(counts)


def fits(cases: list[Case], channel: int, *, above: bool) -> list[tuple[float, int, float, bool]]:
    """Mean Dice of the training cases at each cut, with the cut."""
    low = min(float(case.image[channel].min()) for case in cases)
    high = max(float(case.image[channel].max()) for case in cases)
    cuts = np.linspace(low, high, CUTS)
    total = np.zeros(CUTS)
    for case in cases:
        assert case.label is not None
        bins = np.digitize(case.image[channel], cuts).ravel()
        truth = case.label.ravel() > 0
        # Pixels at or above cut c: those of bin c + 1 and more.
        counts = [np.bincount(bins[pick], minlength=CUTS + 1) for pick in (truth, ~truth)]
        hits, others = (one[::-1].cumsum()[::-1][1:] for one in counts)
        if not above:
            hits, others = counts[0].sum() - hits, counts[1].sum() - others
        total += 2 * hits / np.maximum(1, hits + others + counts[0].sum())
    means = total / len(cases)
    return [
        (float(mean), channel, float(cut), above) for mean, cut in zip(means, cuts, strict=True)
    ]


def say(text: str) -> None:
    """A line for whoever watches."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def anvil(children: Children) -> str:
    """A fresh chain with a block a second; its URL."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    kind = f"anvil-{platform.system().lower()}-{machine}"
    found = ROOT / "node_modules" / "@foundry-rs" / kind / "bin" / "anvil"
    binary = str(found) if found.exists() else shutil.which("anvil")
    if binary is None:
        raise ConfigError("anvil is missing", hint="run `npm install --no-save`")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children.start("anvil", [binary, "--port", str(port), "--block-time", "1", "--silent"])
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            Endpoint.connect(url).block_number()
        except ChainUnavailable:
            time.sleep(0.1)
        else:
            return url
    raise ChainUnavailable("anvil does not answer")


def main() -> int:
    """Play, print the table, then one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_round", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--phase1", type=int, default=600, help="seconds of training")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the miner")
    parser.add_argument("--out", type=Path, help="folder to keep everything in")
    options = parser.parse_args()
    # Ended by a signal, it ends its processes too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = options.out or Path(tempfile.mkdtemp(prefix="pouw-real-round-"))
    out = out.resolve()
    say(f"everything is in {out}")
    rounds = []
    with Children(out / "logs", {"OMP_NUM_THREADS": str(options.threads)}) as children:
        url = anvil(children)
        for name in options.data:
            arena = Arena(out / name, url, children, options.phase1)
            rounds.append(play(arena, name, options.phase1, options.threads))
    for one in rounds:
        print(
            f"{one.data}: Dice {one.dice_ppm / 1e6:.4f} on {one.test_cases} test cases after "
            f"{one.phase1_seconds} s of Phase 1 on {one.threads} threads ({one.steps} steps of "
            f"{one.network}, patch {one.patch}); a threshold reaches {one.threshold_ppm / 1e6:.4f}"
        )
    good = all(one.audit == "ok" and one.dice_ppm > one.threshold_ppm for one in rounds)
    print(json.dumps({"rounds": [asdict(one) for one in rounds], "ok": good}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
