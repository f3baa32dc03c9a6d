"""What a miner's training half keeps for the next start, and what it does not ask for for ever."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from one_round import PARAMETERS
from test_decisions import PARAMETERS as DECIDED
from test_decisions import T0, T1, snapshot
from test_decisions import live as view_of
from tiny_task import tiny_request, tiny_spec

from pouw.documents import Archive
from pouw.journal import Journal
from pouw.ml.planning import insurance_seconds, last_call_seconds
from pouw.ml.requests import ENGINE_FILE, Engine, TrainingRequest, TuningRequest
from pouw.ml.runfolder import RunFolder
from pouw.roles.base import Errands, Notice, Setup
from pouw.roles.processes import TrainingProcess
from pouw.roles.trainer import MinerOptions, Trainer
from pouw.roles.view import View
from pouw.storage.local import LocalStore
from pouw.types import (
    ZERO_ADDRESS,
    ZERO_WORD,
    ArenaState,
    Round,
    RoundNumber,
    Task,
    TaskId,
    Verdict,
)

SPEC = tiny_spec()
TASK = Task(
    task_id=TaskId(7),
    publisher=ZERO_ADDRESS,
    min_score=500_000,
    round=RoundNumber(0),
    pooled=False,
    first=False,
    reward=100,
    above=TaskId(0),
    below=TaskId(0),
    spec_digest=SPEC.digest(),
    key_hash=ZERO_WORD,
)
ROUND = Round(
    number=RoundNumber(3),
    task_id=TASK.task_id,
    t0=0,
    reveals=0,
    opened=False,
    challenged=False,
    ruled=False,
    changed=False,
    verdict=Verdict.NONE,
    voted=0,
    voters=0,
    winner=ZERO_ADDRESS,
    challenger=ZERO_ADDRESS,
    pool_history=ZERO_WORD,
    evidence_digest=ZERO_WORD,
    header=ZERO_WORD,
)
NOTHING: Any = None  # what was asked for once has its own deadlines
QUIET_CHAIN: Any = SimpleNamespace(  # of one block
    sender=SimpleNamespace(address=ZERO_ADDRESS),
    endpoint=SimpleNamespace(block_number=lambda: 0, timestamp=lambda number: 0),
    parameters=lambda: PARAMETERS,
)


class Bench:
    """A trainer in a home of its own, started again as often as a test likes."""

    def __init__(self, home: Path, journal: Journal) -> None:
        self.home = home
        self.warnings: list[str] = []
        self._journal = journal
        self._open: list[tuple[Trainer, Errands]] = []

    def trainer(self, store: str = "store", arena: Any = QUIET_CHAIN) -> Trainer:
        content = LocalStore(self.home / store)
        setup = Setup(arena, content, self.home, self._journal, 1, 0, self._take)
        errands = Errands(setup, inline=True)
        self._open.append((Trainer(setup, MinerOptions(), errands), errands))
        return self._open[-1][0]

    def close(self) -> None:
        for trainer, errands in self._open:
            trainer.end()
            errands.close()

    def _take(self, notice: Notice) -> None:
        if notice.level == "warning":
            self.warnings.append(notice.text)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        bench = Bench(tmp_path, journal)
        yield bench
        bench.close()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def test_spec__started_again_and_nobody_serves_it__is_the_one_that_was_kept(bench: Bench) -> None:
    LocalStore(bench.home / "store").put_bytes(SPEC.encode())
    assert bench.trainer().data.spec(TASK) == SPEC
    assert bench.trainer(store="publisher is down").data.spec(TASK) == SPEC
    assert (bench.home / "tasks" / "7" / "spec.json").read_bytes() == SPEC.encode()


def test_prefetch__trial_that_ends_its_process__is_asked_for_twice_and_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")  # a child that crashes at once
    LocalStore(bench.home / "store").put_bytes(SPEC.encode())
    trainer = bench.trainer()
    asked = bench.home / "tasks" / "7" / Path(ENGINE_FILE).with_suffix(".request.json")
    trials = 0

    def crashed_often() -> bool:
        nonlocal trials
        trainer.prefetch(TASK, opens=2_000_000_000)
        trials += asked.exists()
        asked.unlink(missing_ok=True)
        return sum(line.startswith("training ended") for line in bench.warnings) >= 4

    wait_for(crashed_often)
    assert trials == 2


def test_prefetch__id_is_another_tasks_after_a_reorganisation__gets_a_trial_of_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    store = LocalStore(bench.home / "store")
    archive = Archive(cid=store.put_bytes(b"sealed"), bytes=len(b"sealed"), cases=1)
    one, other = (tiny_spec(title=title, train=archive, test=archive) for title in ("One", "Other"))
    trainer = bench.trainer()
    chosen = bench.home / "tasks" / "7" / ENGINE_FILE
    for spec in (one, other):
        store.put_bytes(spec.encode())
        trainer.prefetch(replace(TASK, spec_digest=spec.digest()), opens=2_000_000_000)
        assert not chosen.exists()
        chosen.write_text("what was chosen for this one")
    asked = TuningRequest.parse(chosen.with_suffix(".request.json").read_text())
    assert asked.spec == other


def test_prefetch__too_late_for_a_trial__asks_for_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    LocalStore(bench.home / "store").put_bytes(SPEC.encode())
    bench.trainer().prefetch(TASK, opens=int(time.time()))
    assert (bench.home / "tasks" / "7" / "spec.json").exists()
    assert not list((bench.home / "tasks" / "7").glob("*.request.json"))


def test_train__started_in_phase_1__keeps_back_the_time_between_blocks_of_this_chain(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    LocalStore(bench.home / "store").put_bytes(SPEC.encode())
    (bench.home / "tasks" / "7" / "train").mkdir(parents=True)
    now, minute = int(time.time()), 60
    slow_chain: Any = SimpleNamespace(
        sender=QUIET_CHAIN.sender,
        endpoint=SimpleNamespace(block_number=lambda: 9, timestamp=lambda number: number * minute),
        parameters=lambda: PARAMETERS,
    )
    live = replace(ROUND, t0=now)
    view = View(
        now=now,
        contract_now=now,
        confirmed=now,
        parameters=PARAMETERS,
        state=ArenaState(1, 1, TaskId(0), 0, True),
        selected=None,
        round=live,
        task=TASK,
    )
    trainer = bench.trainer(arena=slow_chain)
    trainer.train(view, bytes(32))
    saved = (trainer.out(live.number) / "request.json").read_text()
    t1 = now + PARAMETERS.phase1
    assert TrainingRequest.parse(saved).stop_at_ms <= (t1 - minute) * 1000


def test_prefetch__no_model_of_the_network_is_within_the_caps__says_so_once_and_trains_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    caps = SPEC.caps.model_copy(update={"model_bytes": 1_000})
    store = LocalStore(bench.home / "store")
    archive = Archive(cid=store.put_bytes(b"sealed"), bytes=len(b"sealed"), cases=1)
    spec = tiny_spec(caps=caps, train=archive, test=archive)
    store.put_bytes(spec.encode())
    trainer, task = bench.trainer(), replace(TASK, spec_digest=spec.digest())
    for _ in range(3):
        trainer.prefetch(task, opens=2_000_000_000)
    assert trainer._process is None
    (warning,) = bench.warnings
    assert "models of 1000 bytes" in warning


def test_prefetch__process_fails_whenever_it_is_started__is_started_ever_more_rarely(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = bench.home / "child"
    child.write_text("#!/bin/sh\necho 'warning: a checkpoint is damaged' >&2\nexit 1\n")
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    trainer, until = bench.trainer(), time.monotonic() + 2.5
    while time.monotonic() < until:
        trainer.prefetch(TASK, opens=2_000_000_000)
        time.sleep(0.02)
    failures = [line for line in bench.warnings if line.startswith("training ended")]
    assert len(failures) == 2  # at once and a second later, the third would be two after that
    assert bench.warnings.count("a checkpoint is damaged") == len(failures)


def test_ended__training_died_for_good__its_last_snapshot_is_due_before_time_runs_out(
    bench: Bench,
) -> None:
    trainer = bench.trainer()
    trainer._block_seconds = 12.0
    out, t1 = trainer.out(RoundNumber(1)), int(time.time())
    folder = RunFolder(out)
    folder.begin(
        tiny_request(bench.home / "data", out),
        Engine(device="cpu"),
        (t1 - DECIDED.phase1) * 1000,
        "software",
        "device",
    )
    for step, seconds in ((1_000, 300), (1_900, 500)):
        folder.add(snapshot(step, 900_000, milliseconds=seconds * 1000))

    def ended(seconds_left: int) -> bool:
        return trainer.ended(view_of(t1 - seconds_left, t0=t1 - DECIDED.phase1))

    assert not ended(60)  # the snapshot that insures the last one may still come
    assert ended(30)
    assert ended(5)


def test_begin__home_was_moved__trains_on_in_its_folders_of_now(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    trainer = bench.trainer()
    out, data = trainer.out(RoundNumber(1)), bench.home / "tasks" / "7" / "train"
    before = tiny_request(Path("home/tasks/7/train"), Path("home/rounds/1"))
    out.mkdir(parents=True)
    (out / "request.json").write_text(before.line())
    now = trainer._request(RoundNumber(1), TASK, NOTHING, NOTHING, b"", data)
    assert now == before.model_copy(update={"out": out, "data": data})
    process = TrainingProcess(bench.home / "log", 1)
    process.begin(now)
    process.end()
    assert TrainingRequest.parse((out / "request.json").read_text()) == now


def test_begin__request_is_there__is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    request = tiny_request(tmp_path / "data", tmp_path / "out")
    saved = request.out / "request.json"
    written = []
    for _ in range(2):
        process = TrainingProcess(tmp_path / "log", 1)
        process.begin(request)
        process.end()
        written.append(saved.stat().st_ino)
        assert TrainingRequest.parse(saved.read_text()) == request
    assert written[0] == written[1]
    assert saved.stat().st_nlink == 1


def test_begin__killed_while_it_writes__leaves_no_half_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "executable", "/bin/false")
    request = tiny_request(tmp_path / "data", tmp_path / "out")
    process = TrainingProcess(tmp_path / "log", 1)
    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        process.begin(request)
    process.end()
    assert not any(request.out.iterdir())


def test_ended__blocks_were_not_timed_yet__insures_as_with_blocks_of_12_seconds(
    bench: Bench,
) -> None:
    chain = SimpleNamespace(sender=QUIET_CHAIN.sender, parameters=lambda: DECIDED)
    trainer = bench.trainer(arena=chain)
    folder = RunFolder(trainer.out(RoundNumber(1)))
    request = tiny_request(bench.home / "data", folder.path)
    folder.begin(request, Engine(device="cpu"), T0 * 1000, "software", "device")
    last = snapshot(9, 900_000).model_copy(update={"milliseconds": (T1 - T0 - 48) * 1000})
    folder.add(last)
    assert last_call_seconds(12) + insurance_seconds(12) > 48
    assert trainer.ended(view_of(T1 - 45))
