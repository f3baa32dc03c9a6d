"""`pouw node audit` as it is called: models trained again, and scored on a Ray cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_task import tiny_spec, write_tiny_set

from pouw import hashing
from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.cli.main import main
from pouw.documents import Manifest, Provenance, TaskSpec
from pouw.ml.recipe import Proposal
from pouw.ml.requests import Engine, ScoringRequest, TrainingRequest, TrainingSettings
from pouw.ml.scoring import Scorer
from pouw.roles.content import open_archive
from pouw.roles.manifests import build_manifest
from pouw.roles.offer import PublishRequest, seal_offer
from pouw.roles.processes import read_snapshots
from pouw.storage.local import LocalStore
from pouw.types import ZERO_ADDRESS, Address, Parameters, RoundNumber, Verdict

TEST_KEY, SALT = b"\x07" * 32, b"\x04" * 32
DATA_KEY, KEY_HASH = hashing.data_key_of(TEST_KEY), hashing.key_hash_of(TEST_KEY)
HONEST, COPIED = RoundNumber(1), RoundNumber(2)
LIE_PPM = 990_000
PUBLISHER, ORACLE, MINER, COPYCAT = range(4)
PARAMETERS = Parameters(
    asset=ZERO_ADDRESS,
    phase1=600,
    key_window=600,
    reveal_window=600,
    report_window=600,
    challenge_window=0,
    ruling_window=0,
    min_reward=1,
    publisher_bond_bps=1000,
    oracle_fee_bps=500,
    miner_bond=1,
    challenge_bond=1,
    oracles=(Address(dev_account(ORACLE).address),),
    threshold=1,
    arbiter=ZERO_ADDRESS,
)
# Audits before and after the cluster has a processor; it stands in a process of its own.
CLUSTER = """
import json, subprocess, sys
from ray.cluster_utils import Cluster

head = {"num_cpus": 0, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)


def audit():
    command = [*sys.argv[1:], "--ray", cluster.address]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


told = [audit()]
cluster.add_node(num_cpus=1)
told.append(audit())
cluster.shutdown()
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Past:
    """Two closed rounds that a node can audit with ``words``; both winners have one model."""

    words: tuple[str, ...]
    score_ppm: int


class Stage:
    """A task published twice, one training of it, and rounds that are played at once."""

    def __init__(self, endpoint: Endpoint, folder: Path) -> None:
        self.endpoint, self.folder = endpoint, folder
        self.address = deploy(Sender(endpoint, dev_account(PUBLISHER)), PARAMETERS).address
        self.clients = [
            ArenaClient(Sender(endpoint, dev_account(index)), self.address) for index in range(4)
        ]
        self.store = LocalStore(folder / "store")
        self.spec = self._sealed()
        self.store.put_bytes(self.spec.encode())
        for _ in (HONEST, COPIED):
            self.clients[PUBLISHER].publish(self.spec.digest(), KEY_HASH, 1, 10**18)
        # The first is selected at once; the next when its Phase 1 is over, so that it can begin
        # as soon as the first is closed.
        self._advance(PARAMETERS.phase2)

    def _sealed(self) -> TaskSpec:
        shape = tiny_spec()
        request = PublishRequest(
            folder=write_tiny_set(self.folder / "data", train=6, test=0),
            title="Boxes",
            spatial_dims=2,
            reward_wei=10**18,
            min_score_ppm=1,
            training_seconds=1,
            modality="none",
            licence="CC0",
            citation="none",
            proposal=Proposal(shape.network, shape.inference, shape.caps),
        )
        sealed = seal_offer(request, TEST_KEY, self.store, self.folder, lambda *_: None)
        replayed = Provenance(policy="replay", segment_steps=4, segments=1)
        return sealed.model_copy(update={"provenance": replayed})

    def opened(self, part: str) -> Path:
        """The folder of the task's training or test set."""
        return open_archive(
            self.store,
            self.spec,
            part,
            DATA_KEY if part == "train" else TEST_KEY,
            KEY_HASH,
            self.folder / part,
        )

    def trained(self) -> Manifest:
        """What the miner's own training process leaves of the first round."""
        miner = self.clients[MINER].sender.address
        out = self.folder / "out"
        request = TrainingRequest(
            spec=self.spec,
            data=self.opened("train"),
            out=out,
            seed="0x" + hashing.round_seed(DATA_KEY, HONEST, miner).hex(),
            stop_at_ms=int(time.time() * 1000) + 300_000,
            max_steps=12,
            engine=Engine(device="cpu"),
            settings=TrainingSettings(batch_size=2),
        )
        out.mkdir()
        (out / "request.json").write_text(request.line())
        command = [sys.executable, "-m", "pouw.ml.training", str(out / "request.json")]
        subprocess.run(command, check=True)
        task = self.clients[PUBLISHER].task(self.clients[PUBLISHER].state().selected)
        last = read_snapshots(out)[-1]
        return build_manifest(self.store, out, self.spec, task, HONEST, miner, last)

    def score_of(self, manifest: Manifest) -> int:
        model = self.folder / "model.safetensors"
        self.store.get_file(manifest.model.cid, model, manifest.model.bytes)
        request = ScoringRequest(id="m", spec=self.spec, data=self.opened("test"), model=model)
        answer = Scorer().answer(request)
        assert answer.score_ppm is not None
        return answer.score_ppm

    def copied(self, manifest: Manifest) -> Manifest:
        """The same training under another miner's name, with the seed that this one must have."""
        thief = self.clients[COPYCAT].sender.address
        seed = "0x" + hashing.round_seed(DATA_KEY, COPIED, thief).hex()
        changes = {"task": 2, "round": int(COPIED), "miner": thief, "seed": seed}
        return manifest.model_copy(update=changes)

    def pay(self, number: RoundNumber, who: int, manifest: Manifest, claim_ppm: int) -> None:
        """A round from its data key to its end, which a careless committee grants to ``who``."""
        publisher, miner = self.clients[PUBLISHER], self.clients[who]
        self.store.put_bytes(manifest.encode())
        digest, address = manifest.digest(), miner.sender.address
        publisher.release_data_key(DATA_KEY)
        miner.commit(number, miner.commitment_of(number, address, digest, SALT))
        self._advance(PARAMETERS.phase1)
        publisher.open_test(TEST_KEY)
        miner.reveal(number, digest, claim_ppm, SALT)
        self._advance(PARAMETERS.key_window + PARAMETERS.reveal_window)
        self.clients[ORACLE].report(number, Verdict.WINNER, address, b"\x01" * 32)
        self._advance(PARAMETERS.report_window)
        publisher.finalize()

    def _advance(self, seconds: int) -> None:
        self.endpoint.request("evm_increaseTime", seconds)
        self.endpoint.request("evm_mine")


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    """An honest round, and one whose winner stole the model and claimed more than it does."""
    folder = tmp_path_factory.mktemp("audited")
    with Devnet(folder / "chain", port=0, block_seconds=0) as chain:
        endpoint = Endpoint.connect(chain.url)
        stage = Stage(endpoint, folder)
        honest = stage.trained()
        score = stage.score_of(honest)
        stage.pay(HONEST, MINER, honest, score)
        stage.pay(COPIED, COPYCAT, stage.copied(honest), LIE_PPM)
        endpoint.close()
        where = ("--rpc", chain.url, "--arena", stage.address, "--store", str(folder / "store"))
        depth = ("--home", str(folder / "node"), "--confirmations", "1", "--from-block", "0")
        yield Past(("node", "audit", "--json", *where, *depth), score)


def problems(report: dict[str, Any]) -> list[list[str]]:
    return [[problem["rule"] for problem in one["problems"]] for one in report["rounds"]]


def test_audit__provenance__names_the_copied_training_and_no_other(
    past: Past, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*past.words, "--rescore", "none", "--provenance"])

    report = json.loads(capsys.readouterr().out)
    assert (code, report["exit_code"]) == (2, 2)
    assert problems(report) == [[], ["provenance"]]
    assert [one["result"] for one in report["rounds"]] == ["true", "false"]
    (problem,) = report["rounds"][1]["problems"]
    assert "unlike" in problem["detail"]


def test_audit__ray__scores_where_the_cluster_has_room_and_names_the_false_claim(
    past: Past,
) -> None:
    pytest.importorskip("ray")
    pouw = str(Path(sys.executable).with_name("pouw"))
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", CLUSTER, pouw, *past.words],
        capture_output=True,
        text=True,
        env={**os.environ, **quiet},
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    (no_room, _, why), (code, out, _) = json.loads(ended.stdout.splitlines()[-1])

    assert no_room == 1
    assert "cluster" in why
    report = json.loads(out)
    assert code == 2
    assert [one["measured_ppm"] for one in report["rounds"]] == [past.score_ppm] * 2
    assert problems(report) == [[], ["score"]]
    assert str(LIE_PPM) in report["rounds"][1]["problems"][0]["detail"]
