"""An arena on which rounds are played at once, with one real training and any verdict."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tiny_task import tiny_spec, write_tiny_set

from pouw import hashing
from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
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


class Stage:
    """A task published several times, one training of it, and rounds that are played at once."""

    def __init__(self, endpoint: Endpoint, folder: Path, rounds: int = 2) -> None:
        self.endpoint, self.folder = endpoint, folder
        self.address = deploy(Sender(endpoint, dev_account(PUBLISHER)), PARAMETERS).address
        self.clients = [
            ArenaClient(Sender(endpoint, dev_account(index)), self.address) for index in range(4)
        ]
        self.store = LocalStore(folder / "store")
        self.spec = self._sealed()
        self.store.put_bytes(self.spec.encode())
        for _ in range(rounds):
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
        sealed = seal_offer(request, TEST_KEY, self.store, self.folder, lambda *_: None).spec
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

    def copied(self, manifest: Manifest, number: RoundNumber = COPIED) -> Manifest:
        """The same training under another miner's name, with the seed that this one must have."""
        thief = self.clients[COPYCAT].sender.address
        seed = "0x" + hashing.round_seed(DATA_KEY, number, thief).hex()
        changes = {"task": int(number), "round": int(number), "miner": thief, "seed": seed}
        return manifest.model_copy(update=changes)

    def play(
        self,
        number: RoundNumber,
        who: int,
        manifest: Manifest,
        claim_ppm: int,
        verdict: Verdict = Verdict.WINNER,
        evidence_digest: bytes = b"\x01" * 32,
    ) -> None:
        """A round from its data key to its end, with the verdict that the committee likes."""
        publisher, miner = self.clients[PUBLISHER], self.clients[who]
        self.store.put_bytes(manifest.encode())
        digest, address = manifest.digest(), miner.sender.address
        publisher.release_data_key(DATA_KEY)
        miner.commit(number, miner.commitment_of(number, address, digest, SALT))
        self._advance(PARAMETERS.phase1)
        publisher.open_test(TEST_KEY)
        miner.reveal(number, digest, claim_ppm, SALT)
        self._advance(PARAMETERS.key_window + PARAMETERS.reveal_window)
        winner = address if verdict is Verdict.WINNER else ZERO_ADDRESS
        self.clients[ORACLE].report(number, verdict, winner, evidence_digest)
        self._advance(PARAMETERS.report_window)
        publisher.finalize()

    def _advance(self, seconds: int) -> None:
        self.endpoint.request("evm_increaseTime", seconds)
        self.endpoint.request("evm_mine")
