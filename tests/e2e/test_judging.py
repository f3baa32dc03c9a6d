"""One oracle over five reveals on a real chain: what it judges and in which order, and what not."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from revealing import Stage, revealed

from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.documents import Checkpoint, Evidence, Provenance, TaskSpec
from pouw.events import Reported
from pouw.hashing import raw_cid
from pouw.journal import Journal
from pouw.roles.base import Notice, Setup
from pouw.roles.evidence import NOT_TO_BE_HAD
from pouw.roles.oracle import Oracle, OracleOptions
from pouw.roles.processes import ScoringProcess
from pouw.roles.scorers import CRASHES
from pouw.storage.local import LocalStore

PATIENCE_SECONDS = 240.0


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with Devnet(tmp_path / "chain", port=0, block_seconds=0) as running:
        connected = Endpoint.connect(running.url)
        yield connected
        connected.close()


@pytest.fixture
def advance(endpoint: Endpoint) -> Callable[[int], None]:
    def pass_time(seconds: int) -> None:
        endpoint.request("evm_increaseTime", seconds)
        endpoint.request("evm_mine")

    return pass_time


def _opened(stage: Stage, spec: TaskSpec, advance: Callable[[int], None]) -> None:
    """A round of the task ``spec`` in which somebody revealed something."""
    stage.store.put_bytes(spec.encode())
    revealed(stage, [stage.enter(2, stage.model("any", lambda tensor: tensor), 990_000)], advance)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("off", [-1, 1, 300 << 30])
def test_oracle__archive_of_another_size_than_declared__votes_invalid(
    endpoint: Endpoint, advance: Callable[[int], None], tmp_path: Path, part: str, off: int
) -> None:
    def misdeclared(spec: TaskSpec) -> TaskSpec:
        archive = getattr(spec, part)
        return spec.model_copy(
            update={part: archive.model_copy(update={"bytes": archive.bytes + off})}
        )

    stage = Stage(endpoint, tmp_path, misdeclared)
    _opened(stage, stage.spec, advance)
    evidence = _judged(stage, tmp_path, advance)
    assert evidence.verdict == "invalid"
    assert not evidence.invalid_reason.startswith(NOT_TO_BE_HAD)


def test_oracle__archive_that_nobody_serves__votes_invalid_once_it_is_late(
    endpoint: Endpoint, advance: Callable[[int], None], tmp_path: Path
) -> None:
    absent = "bafkrei" + "a" * 52
    stage = Stage(
        endpoint,
        tmp_path,
        lambda spec: spec.model_copy(
            update={"test": spec.test.model_copy(update={"cid": absent, "bytes": 5})}
        ),
    )
    _opened(stage, stage.spec, advance)
    evidence = _judged(stage, tmp_path, advance, scored=0)
    assert evidence.verdict == "invalid"
    assert evidence.invalid_reason.startswith(NOT_TO_BE_HAD)


def test_oracle__disk_too_full_for_the_archive__votes_nothing_against_the_publisher(
    endpoint: Endpoint, advance: Callable[[int], None], tmp_path: Path
) -> None:
    stage = Stage(endpoint, tmp_path)
    _opened(stage, stage.spec, advance)
    notices: list[Notice] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path / "journal.sqlite") as journal:
        setup = Setup(
            stage.clients[1], stage.store, tmp_path / "home", journal, 1, 0, notices.append
        )
        oracle = Oracle(setup, OracleOptions(), inline=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (stage.spec.train.bytes - 1_000, hard))
        try:
            oracle.run_once()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        try:
            assert any("too large" in notice.text for notice in notices)
            assert not any("is invalid" in notice.text for notice in notices)
        finally:
            oracle.close()


def test_oracle__liar_hostile_missing_honest_and_one_below__votes_with_reasons(
    endpoint: Endpoint, advance: Callable[[int], None], tmp_path: Path
) -> None:
    stage = Stage(endpoint, tmp_path)
    honest = stage.model("honest", lambda tensor: tensor)
    poisoned = stage.model("poisoned", lambda tensor: tensor * float("nan"))
    other = stage.model("other", lambda tensor: tensor * 1.5)
    unseen = stage.model("unseen", lambda tensor: tensor * 1.25)
    score = stage.score_of(honest)
    entrants = {
        "liar": stage.enter(2, other, 990_000),
        "hostile": stage.enter(3, poisoned, 980_000),
        "missing": stage.enter(4, unseen, 970_000, served=False),
        "honest": stage.enter(5, honest, score),
        "below": stage.enter(6, honest, score - 1),
    }
    revealed(stage, entrants.values(), advance)
    evidence = _judged(stage, tmp_path, advance)

    names = {one.arena.sender.address.lower(): name for name, one in entrants.items()}
    assert evidence.verdict == "winner"
    assert evidence.winner is not None
    assert names[evidence.winner.lower()] == "honest"
    judged = [(names[one.miner.lower()], one.reason, one.true_claim) for one in evidence.judged]
    assert judged == [
        ("liar", "bound", False),
        ("hostile", "model", False),
        ("missing", "unavailable", False),
        ("honest", "score", True),
    ]
    assert "not finite" in evidence.judged[1].detail
    assert "attempt(s) until now; the last: cannot read block" in evidence.judged[2].detail
    assert evidence.judged[3].score_ppm == score
    assert len(evidence.judged[0].cases) <= len(evidence.judged[3].cases)
    assert [(names[one.miner.lower()], one.reason) for one in evidence.skipped] == [
        ("below", "ranks-below-a-true-claim")
    ]


def test_oracle__checkpoints__are_asked_for_once_the_score_holds_and_then_decide(
    endpoint: Endpoint, advance: Callable[[int], None], tmp_path: Path
) -> None:
    stage = Stage(
        endpoint,
        tmp_path,
        lambda spec: spec.model_copy(update={"provenance": Provenance(policy="manifest")}),
    )
    model = stage.model("any", lambda tensor: tensor)
    other = stage.model("other", lambda tensor: tensor * 1.5)
    score = stage.score_of(model)
    garbage = stage.store.put_bytes(b"no checkpoint")
    absent = "bafkrei" + "a" * 52

    def checkpoint(cid: str) -> Checkpoint:
        return Checkpoint(
            step=1,
            milliseconds=1,
            cid=cid,
            bytes=len(b"no checkpoint"),
            previous=None,
            train_loss_ppm=0,
            validation_dice_ppm=0,
        )

    entrants = {
        "liar": stage.enter(2, other, 990_000, checkpoint=checkpoint(absent)),
        "absent": stage.enter(3, model, score, checkpoint=checkpoint(absent)),
        "garbage": stage.enter(4, model, score - 1, checkpoint=checkpoint(garbage)),
        "none": stage.enter(5, model, score - 2),
    }
    revealed(stage, entrants.values(), advance)
    evidence = _judged(stage, tmp_path, advance)
    names = {one.arena.sender.address.lower(): name for name, one in entrants.items()}
    assert evidence.verdict == "no-true-claim"
    assert [(names[one.miner.lower()], one.reason) for one in evidence.judged] == [
        ("liar", "bound"),
        ("absent", "unavailable"),
        ("garbage", "manifest"),
        ("none", "manifest"),
    ]
    assert absent in evidence.judged[1].detail
    assert evidence.judged[3].detail == "it lists no checkpoint"


class ServedByTheByte(LocalStore):
    """A store that never comes to the end of one file."""

    def __init__(self, folder: Path, cid: str) -> None:
        super().__init__(folder)
        self.cid = cid
        self.given_up = threading.Event()

    def get_file(self, cid: str, destination: Path, size: int) -> None:
        if cid == self.cid:
            self.given_up.wait(PATIENCE_SECONDS)
        super().get_file(cid, destination, size)


def test_oracle__highest_claim_is_served_by_the_byte__those_below_are_judged_meanwhile(
    endpoint: Endpoint,
    advance: Callable[[int], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pouw.roles.candidates._SLOW_SECONDS", 0.5)
    stage = Stage(endpoint, tmp_path)
    honest = stage.model("honest", lambda tensor: tensor)
    score = stage.score_of(honest)
    slow = stage.enter(2, stage.model("slow", lambda tensor: tensor * 1.5), 990_000)
    entrants = [slow, stage.enter(3, honest, score)]
    revealed(stage, entrants, advance)
    stage.store = ServedByTheByte(tmp_path / "store", slow.manifest.model.cid)
    evidence = _judged(stage, tmp_path, advance, scored=1, inline=False)
    assert evidence.verdict == "winner"
    assert evidence.winner == entrants[1].arena.sender.address
    assert [one.reason for one in evidence.judged] == ["unavailable", "score"]


def _judged(
    stage: Stage,
    folder: Path,
    advance: Callable[[int], None],
    scored: int = 3,
    *,
    inline: bool = True,
) -> Evidence:
    """Run the oracle until it has voted: near the end of its window, for content is missing."""
    notices: list[Notice] = []
    arena = stage.clients[1]
    with Journal(folder / "journal.sqlite") as journal:
        setup = Setup(
            arena=arena,
            store=stage.store,
            home=folder / "home",
            journal=journal,
            confirmations=1,
            from_block=0,
            notify=notices.append,
        )
        oracle = Oracle(setup, OracleOptions(report_margin_seconds=5_000), inline=inline)
        try:
            until = time.monotonic() + PATIENCE_SECONDS
            late = False
            while time.monotonic() < until:
                oracle.run_once()
                measured = sum("measured" in notice.text for notice in notices)
                if measured == scored and not late:
                    advance(6_000)
                    late = True
                for event in arena.events(0, arena.endpoint.block_number()):
                    if isinstance(event, Reported):
                        return Evidence.parse(stage.store.get_bytes(raw_cid(event.evidence_digest)))
                time.sleep(0.05)
        finally:
            if isinstance(stage.store, ServedByTheByte):
                stage.store.given_up.set()
            oracle.close()
    raise AssertionError([notice.text for notice in notices])


def test_oracle__short_of_memory_again_and_again__finds_nothing_against_the_model(
    endpoint: Endpoint, advance: Callable[[int], None], tmp_path: Path
) -> None:
    """A system without memory left ends the process that scores by SIGKILL."""
    stage = Stage(endpoint, tmp_path)
    honest = stage.model("honest", lambda tensor: tensor)
    revealed(stage, [stage.enter(2, honest, stage.score_of(honest))], advance)
    notices: list[Notice] = []
    with Journal(tmp_path / "journal.sqlite") as journal:
        setup = Setup(
            stage.clients[1], stage.store, tmp_path / "home", journal, 1, 0, notices.append
        )
        oracle = Oracle(setup, OracleOptions(), inline=True)
        scoring = oracle._judging._scoring
        assert isinstance(scoring, ScoringProcess)
        try:
            until = time.monotonic() + PATIENCE_SECONDS
            killed = 0
            while not any("measured" in notice.text for notice in notices):
                assert time.monotonic() < until, notices
                oracle.run_once()
                if scoring.busy and scoring.pid is not None and killed < CRASHES:
                    os.kill(scoring.pid, signal.SIGKILL)
                    killed += 1
                time.sleep(0.2)
        finally:
            oracle.close()
    assert killed == CRASHES
    assert sum("SIGKILL" in notice.text for notice in notices) == CRASHES
    assert notices[-1].data["true_claim"]
