"""A round with reveals of several kinds, for one oracle to judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tiny_task import tiny_spec, write_tiny_set

from pouw import hashing
from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.documents import Checkpoint, Manifest, ModelFile, Recipe, TaskSpec
from pouw.ml.checkpoint import floating_state, save_model
from pouw.ml.networks import build
from pouw.ml.recipe import Proposal
from pouw.ml.requests import ScoringRequest
from pouw.ml.scoring import Scorer
from pouw.roles.content import open_archive
from pouw.roles.offer import PublishRequest, seal_offer
from pouw.storage.local import LocalStore
from pouw.types import ZERO_ADDRESS, Address, Parameters, RoundNumber

TEST_KEY = b"\x07" * 32
DATA_KEY = hashing.data_key_of(TEST_KEY)
SALT = b"\x04" * 32
FIRST = RoundNumber(1)
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
        sealed = seal_offer(request, TEST_KEY, self.store, scratch, lambda *_: None).spec
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


def revealed(stage: Stage, entrants: Iterable[Entrant], advance: Callable[[int], None]) -> None:
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
