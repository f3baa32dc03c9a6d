"""Short rounds on anvil, in real time: a real miner trains on real MRI and commits before t1.

Only what nobody watches is skipped: the chain's clock jumps over selection and Phase 2.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any, Final

from rich.progress import track

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.errors import ChainUnavailable, ConfigError
from pouw.journal import Journal
from pouw.ml.brain import brain_proposal, write_brain_set
from pouw.ml.planning import whole_epochs
from pouw.ml.requests import PROGRESS_FILE, Progress
from pouw.roles.base import Errands, Setup
from pouw.roles.miner import Miner, MinerOptions
from pouw.roles.offer import PublishRequest
from pouw.roles.processes import read_finished, read_run, read_snapshots
from pouw.roles.publisher import Publisher
from pouw.roles.submission import Submissions
from pouw.roles.view import read_view
from pouw.storage.local import LocalStore
from pouw.types import ZERO_ADDRESS, Address, Parameters, RoundNumber, Task

ROOT: Final = Path(__file__).resolve().parents[1]
PHASE1, WINDOW = 40, 20
EPOCH_STEPS: Final = 12  # 48 slices, four a step
_PATIENCE_SECONDS: Final = 120.0
_START_SECONDS: Final = 30


@contextmanager
def anvil() -> Iterator[str]:
    """The URL of a fresh anvil with a block a second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = sorted(ROOT.glob("node_modules/@foundry-rs/anvil-*/bin/anvil"))
    executable = str(found[0]) if found else shutil.which("anvil")
    if executable is None:
        raise ConfigError("anvil is missing", hint="run `make bench-deadline`, or npm install")
    command = [executable, "--port", str(port), "--silent", "--block-time", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(_START_SECONDS * 10):
                try:
                    Endpoint.connect(url).block_number()
                    break
                except ChainUnavailable:
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()


class Stage:
    """One arena on one chain, a publisher and a miner."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._url = url
        self.endpoint = Endpoint.connect(url)
        parameters = Parameters(
            asset=ZERO_ADDRESS,
            phase1=PHASE1,
            key_window=WINDOW,
            reveal_window=WINDOW,
            report_window=WINDOW,
            challenge_window=0,
            ruling_window=0,
            min_reward=1,
            publisher_bond_bps=0,
            oracle_fee_bps=0,
            miner_bond=1,
            challenge_bond=1,
            oracles=(Address(dev_account(3).address),),
            threshold=1,
            arbiter=ZERO_ADDRESS,
        )
        self.arena = deploy(Sender(self.endpoint, dev_account(0)), parameters)
        self.publisher = Publisher(self._setup("publisher", 1))
        setup = self._setup("miner", 2)
        options = MinerOptions(first_snapshot_seconds=5, snapshot_seconds=10)
        self.miner = Miner(setup, options)
        self.submissions = Submissions(setup, Errands(setup))
        write_brain_set(folder / "data", 2, seed=1)

    def _setup(self, name: str, number: int) -> Setup:
        home = self.folder / name
        home.mkdir()
        return Setup(
            arena=ArenaClient.connect(self._url, self.arena.address, dev_account(number)),
            store=LocalStore(self.folder / "store"),
            home=home,
            journal=Journal(home / "journal.sqlite"),
            confirmations=1,
            from_block=0,
            notify=lambda notice: None,
        )

    def publish(self) -> None:
        """One more task on the same images."""
        self.publisher.publish(
            PublishRequest(
                folder=self.folder / "data",
                title="Brain tissue",
                spatial_dims=2,
                reward_wei=1,
                min_score_ppm=0,
                training_seconds=PHASE1,
                modality="MR T1",
                licence="see nilearn",
                citation="Fonov et al. 2011",
                proposal=brain_proposal(2),
                data_will_be_public=True,
                test_set_may_be_known=True,
            )
        )

    def move_to(self, moment: int) -> None:
        """Let the chain's clock stand at ``moment`` or later."""
        ahead = moment - self.endpoint.timestamp("latest")
        if ahead > 0:
            self.endpoint.request("evm_increaseTime", ahead)
        self.endpoint.request("evm_mine")

    def round(self, number: RoundNumber) -> dict[str, Any]:
        """Play one round to its end; what came of its Phase 1."""
        until = time.monotonic() + _PATIENCE_SECONDS + PHASE1
        report: dict[str, Any] = {}
        while time.monotonic() < until:
            self.publisher.run_once()
            self.miner.run_once()
            view = read_view(self.arena, 1)
            if view.live and view.deadlines and view.now >= view.deadlines.t1 and not report:
                report = self._report(number, view.deadlines.t1 - PHASE1, view.now - time.time())
                self.move_to(view.deadlines.t4)
            elif view.selected and view.opens and not view.live and self._prepared(view.selected):
                self.move_to(view.opens)
            if report and self.arena.round(number).closed:
                return report
            time.sleep(0.25)
        raise ChainUnavailable(f"round {number} did not close in time")

    def _prepared(self, task: Task) -> bool:
        folder = self.folder / "miner" / "tasks" / str(task.task_id)
        return (folder / "engine.json").exists() and any(folder.glob("*.sealed"))

    def _report(self, number: RoundNumber, t0: int, ahead: float) -> dict[str, Any]:
        out = self.folder / "miner" / "rounds" / str(number)
        committed = self.submissions.committed(number)
        run, finished, snapshots = read_run(out), read_finished(out), read_snapshots(out)
        if run is None or finished is None or not (out / PROGRESS_FILE).exists():
            return {"missed": committed is None, "late": True, "idle_percent": 100.0}
        lines = (out / PROGRESS_FILE).read_bytes().splitlines()
        progress = [Progress.parse(line) for line in lines]
        begun = run.started_at_ms / 1_000 + ahead - t0
        trained = begun + progress[-1].milliseconds / 1_000
        return {
            "missed": committed is None,
            "late": committed is None or committed.step != snapshots[-1].step,
            "started_seconds": round(begun, 2),
            "idle_percent": round(100 * (1 - trained / PHASE1), 2),
            **_by_epochs(progress, begun),
        }


def _by_epochs(progress: list[Progress], begun: float) -> dict[str, Any]:
    """What the paper's rule would have done with the pace of this very round."""
    times = [(0, 0.0), *((one.step, one.milliseconds / 1_000) for one in progress)]

    def moment(step: float) -> float:
        for (before, sooner), (after, later) in pairwise(times):
            if step <= after:
                return sooner + (later - sooner) * (step - before) / (after - before)
        return times[-1][1] * step / times[-1][0]

    first = moment(EPOCH_STEPS)
    epochs = 1 + whole_epochs(first * 1_000, (begun + first) * 1_000, PHASE1 * 1_000)
    ends = begun + moment(EPOCH_STEPS * epochs)
    # A block has to come after it.
    return {
        "paper_missed": ends + 1 >= PHASE1,
        "paper_idle_percent": max(0, 100 - 100 * ends / PHASE1),
    }


def play(rounds: int) -> dict[str, Any]:
    """Play that many rounds; misses and idle shares of Phase 1, beside the paper's rule."""
    with tempfile.TemporaryDirectory() as folder, anvil() as url:
        stage = Stage(url, Path(folder))
        try:
            found = []
            for number in track(range(1, rounds + 1), "playing"):
                stage.publish()
                found.append(stage.round(RoundNumber(number)))
        finally:
            stage.miner.close()
            stage.publisher.close()
    return {
        "rounds": rounds,
        "phase1_seconds": PHASE1,
        "missed": sum(one["missed"] for one in found),
        "late": sum(one["late"] for one in found),
        "idle_percent": round(mean(one["idle_percent"] for one in found), 2),
        "paper_missed": sum(one.get("paper_missed", True) for one in found),
        "paper_idle_percent": round(mean(one.get("paper_idle_percent", 100) for one in found), 2),
        "each": found,
    }
