"""One oracle over five reveals on a real chain: what it judges and in which order, and what not."""

from __future__ import annotations

import dataclasses
import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from tiny_task import tiny_spec, write_tiny_set

from pouw import hashing
from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.documents import (
    Checkpoint,
    Evidence,
    Manifest,
    ModelFile,
    Provenance,
    Recipe,
    TaskSpec,
)
from pouw.events import Reported
from pouw.hashing import raw_cid
from pouw.journal import Journal
from pouw.ml.checkpoint import floating_state, save_model
from pouw.ml.networks import build
from pouw.ml.recipe import Proposal
from pouw.ml.requests import ScoringRequest
from pouw.ml.scoring import Scorer
from pouw.roles.base import Notice, Setup
from pouw.roles.content import open_archive
from pouw.roles.evidence import NOT_TO_BE_HAD
from pouw.roles.offer import PublishRequest, seal_offer
from pouw.roles.oracle import Oracle, OracleOptions
from pouw.storage.local import LocalStore
from pouw.types import ZERO_ADDRESS, Address, Parameters, RoundNumber

TEST_KEY = b"\x07" * 32
DATA_KEY = hashing.data_key_of(TEST_KEY)
SALT = b"\x04" * 32
FIRST = RoundNumber(1)
PATIENCE_SECONDS = 240.0
PARAMETERS = Parameters(
    asset=ZERO_ADDRESS,
    phase1=600,
    key_window=600,
    reveal_window=600,
    report_window=10_000,
    challenge_window=0,
    ruling_window=0,
    min_reward=1,
    publisher_bond_bps=1000,
    oracle_fee_bps=500,
    miner_bond=1,
    challenge_bond=1,
    oracles=(Address(dev_account(1).address),),
    threshold=1,
    arbiter=ZERO_ADDRESS,
)


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


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A miner's client with what it commits to and claims."""

    arena: ArenaClient
    manifest: Manifest
    claim_ppm: int


class Stage:
    """A published task, a store that everybody reads, and models of several kinds."""

    def __init__(
        self,
        endpoint: Endpoint,
        folder: Path,
        change: Callable[[TaskSpec], TaskSpec] = lambda spec: spec,
    ) -> None:
        arena = deploy(Sender(endpoint, dev_account(0)), PARAMETERS).address
        self.clients = [
            ArenaClient(Sender(endpoint, dev_account(index)), arena) for index in range(8)
        ]
        self.folder = folder
        self.store = LocalStore(folder / "store")
        shape = tiny_spec()
        request = PublishRequest(
            folder=write_tiny_set(folder / "data", train=8, test=0),
            title="Boxes",
            spatial_dims=2,
            reward_wei=10**18,
            min_score_ppm=1,
            training_seconds=1,
            modality="none",
            licence="CC0",
            citation="none",
            provenance="none",
            proposal=Proposal(shape.network, shape.inference, shape.caps),
        )
        scratch = folder / "scratch"
        scratch.mkdir()
        sealed = seal_offer(request, TEST_KEY, self.store, scratch, lambda *_: None)
        self.spec: TaskSpec = change(sealed)
        self.store.put_bytes(self.spec.encode())
        self.key_hash = hashing.key_hash_of(TEST_KEY)
        self.clients[0].publish(self.spec.digest(), self.key_hash, 1, request.reward_wei)

    def model(self, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
        torch.manual_seed(1)
        network = build(self.spec.network, 1, 3, parameters_cap=100_000)
        with torch.no_grad():
            for tensor in floating_state(network).values():
                tensor.copy_(change(tensor))
        path = self.folder / f"{name}.safetensors"
        save_model(path, network)
        return path

    def score_of(self, model: Path) -> int:
        data = open_archive(
            self.store, self.spec, "test", TEST_KEY, self.key_hash, self.folder / "opened"
        )
        answer = Scorer().answer(ScoringRequest(id="m", spec=self.spec, data=data, model=model))
        assert answer.score_ppm is not None
        return answer.score_ppm

    def enter(
        self,
        index: int,
        model: Path,
        claim_ppm: int,
        *,
        served: bool = True,
        checkpoint: Checkpoint | None = None,
    ) -> Entrant:
        client = self.clients[index]
        store = self.store if served else LocalStore(self.folder / "never served")
        stored = store.put_file(model)
        manifest = Manifest(
            task=1,
            round=FIRST,
            miner=client.sender.address,
            network=self.spec.network,
            model=ModelFile(cid=stored.cid, bytes=stored.bytes, dtype="float32"),
            checkpoints=(checkpoint,) if checkpoint else (),
            seed="0x" + hashing.round_seed(DATA_KEY, FIRST, client.sender.address).hex(),
            recipe=Recipe(engine={}, settings={}),
            software="test",
            device="test",
        )
        self.store.put_bytes(manifest.encode())
        return Entrant(client, manifest, claim_ppm)


def _revealed(stage: Stage, entrants: Iterable[Entrant], advance: Callable[[int], None]) -> None:
    """A round of the stage's task in which they all revealed, until reports are due."""
    advance(PARAMETERS.phase2)
    stage.clients[0].release_data_key(DATA_KEY)
    for one in entrants:
        digest, who = one.manifest.digest(), one.arena.sender.address
        one.arena.commit(FIRST, one.arena.commitment_of(FIRST, who, digest, SALT))
    advance(PARAMETERS.phase1)
    stage.clients[0].open_test(TEST_KEY)
    for one in entrants:
        one.arena.reveal(FIRST, one.manifest.digest(), one.claim_ppm, SALT)
    advance(PARAMETERS.key_window + PARAMETERS.reveal_window)


def _opened(stage: Stage, spec: TaskSpec, advance: Callable[[int], None]) -> None:
    """A round of the task ``spec`` in which somebody revealed something."""
    stage.store.put_bytes(spec.encode())
    _revealed(stage, [stage.enter(2, stage.model("any", lambda tensor: tensor), 990_000)], advance)


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
    _revealed(stage, entrants.values(), advance)
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
    _revealed(stage, entrants.values(), advance)
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
    _revealed(stage, entrants, advance)
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
