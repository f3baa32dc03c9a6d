"""A miner in Phase 1 of a live round, whose training is played: its files, without a process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from one_round import ETHER, LATER, PARAMETERS, PUBLISHER, ROUND, TEST_KEY, Stage
from tiny_task import tiny_request, tiny_spec

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient
from pouw.chain.outgoing import Policy
from pouw.chain.rpc import BlockTag, Endpoint
from pouw.chain.tx import Sender
from pouw.documents import Archive, Manifest, TaskSpec
from pouw.events import Committed
from pouw.hashing import data_key_of, key_hash_of
from pouw.journal import Journal
from pouw.ml.requests import Engine, Finished, Snapshot
from pouw.ml.runfolder import RunFolder
from pouw.roles.base import Notice, Setup
from pouw.roles.content import fetch_manifest
from pouw.roles.miner import Miner, MinerOptions
from pouw.roles.outbox import JournalOutbox
from pouw.storage.local import LocalStore
from pouw.types import Deadlines


class World:
    """An arena whose round has begun, with a deadline far off."""

    def __init__(self, endpoint: Endpoint, folder: Path, spec: TaskSpec | None = None) -> None:
        self.endpoint, self.folder = endpoint, folder
        self.store = LocalStore(folder / "store")
        sealed = Archive(cid=self.store.put_bytes(b"sealed"), bytes=len(b"sealed"), cases=1)
        self.spec = (spec or tiny_spec()).model_copy(update={"train": sealed, "test": sealed})
        self.store.put_bytes(self.spec.encode())
        self.stage = Stage(endpoint, self.spec.digest())

    def begin(self, *, first: bool = False) -> None:
        """Let Phase 1 begin; with ``first`` that of a task where the earliest commitment wins."""
        publisher = self.stage.clients[PUBLISHER]
        if first:
            key_hash = key_hash_of(TEST_KEY)
            publisher.publish(self.spec.digest(), key_hash, 500_000, ETHER, first=True)
            self.stage.wait(PARAMETERS.phase2 + PARAMETERS.key_window)
            publisher.sync()  # drops the one that was selected
        self.stage.wait(PARAMETERS.phase2)
        publisher.release_data_key(data_key_of(TEST_KEY))

    @property
    def deadlines(self) -> Deadlines:
        return Deadlines.of(self.stage.arena.round(ROUND).t0, PARAMETERS)

    def open_test(self) -> None:
        self.stage.wait(PARAMETERS.phase1)
        self.stage.clients[PUBLISHER].open_test(TEST_KEY)

    def close_round(self) -> None:
        """Let the round end without a verdict."""
        self.stage.wait(PARAMETERS.phase2)
        self.stage.clients[PUBLISHER].finalize()

    def mine(self, blocks: int) -> None:
        self.endpoint.request("anvil_mine", hex(blocks))

    def commitments(self) -> list[Committed]:
        """Every commitment to the round that the chain holds, or held before another."""
        events = self.stage.arena.events(0, self.endpoint.block_number())
        return [event for event in events if isinstance(event, Committed)]


class Behind(ArenaClient):
    """One of the nodes behind the endpoint is so many blocks ``behind``; it tells the entries."""

    behind = 0

    def read(self, name: str, *arguments: Any, block: BlockTag = "latest") -> tuple[Any, ...]:
        if name == "entries":
            known = self.endpoint.block_number() - self.behind
            if block == "latest":
                block = known
            elif isinstance(block, int) and block > known:
                block = 1 << 40  # no more to be had from it than what nobody has
        return super().read(name, *arguments, block=block)


class Machine:
    """One machine of the miner's: a home, a journal and a training."""

    patience_seconds = 60.0

    def __init__(self, world: World, name: str = "home") -> None:
        self.world, self.home = world, world.folder / name
        self.journal = Journal(self.home / "journal.sqlite")
        self.notices: list[Notice] = []
        self.out = self.home / "rounds" / str(ROUND)
        self.folder = RunFolder(self.out)
        request = tiny_request(self.home / "data", self.out, spec=world.spec)
        (self.out / "request.json").write_text(request.line())
        self.folder.begin(request, Engine(device="cpu"), int(time.time() * 1000), "s", "d")
        self.finish("max-steps")  # none is started in its place
        self.miner = self.started()

    def started(self) -> Miner:
        """A new process on this home; a transaction is waited for so long and no longer."""
        policy = Policy(timeout_seconds=self.patience_seconds)
        sender = Sender(
            self.world.endpoint, dev_account(LATER), JournalOutbox(self.journal), policy
        )
        self.arena = Behind(sender, self.world.stage.arena.address)
        setup = Setup(
            self.arena, self.world.store, self.home, self.journal, 1, 0, self.notices.append
        )
        return Miner(setup, MinerOptions(device="cpu", trial=False), inline=True)

    def restart(self) -> None:
        self.miner.close()
        self.miner = self.started()

    def train(self, step: int, dice_ppm: int = 900_000) -> Snapshot:
        """A snapshot, as the training process would leave it."""
        model, checkpoint = f"model-{step:08d}.safetensors", f"checkpoint-{step:08d}.safetensors"
        (self.out / model).write_bytes(f"model {self.home.name} {step}".encode())
        data = f"checkpoint {self.home.name} {step}".encode()
        (self.out / checkpoint).write_bytes(data)
        snapshot = Snapshot(
            step=step,
            milliseconds=step,
            model=model,
            checkpoint=checkpoint,
            checkpoint_bytes=len(data),
            previous=None,
            train_loss_ppm=0,
            validation_dice_ppm=dice_ppm,
        )
        self.folder.add(snapshot)
        return snapshot

    def finish(self, reason: str) -> None:
        self.folder.finish(Finished(step=1, milliseconds=1, reason=reason))

    def run_once(self) -> str:
        return self.miner.run_once().doing

    def committed_step(self) -> int | None:
        """The step of the snapshot that the chain's commitment binds, where it is ours."""
        submission = self.miner._submissions.committed(ROUND)
        return None if submission is None else submission.step

    def manifest(self) -> Manifest:
        """What the commitment on chain binds."""
        submission = self.miner._submissions.committed(ROUND)
        assert submission is not None
        return fetch_manifest(self.private, submission.manifest_digest)

    def files(self) -> set[str]:
        """The weights that lie in the round's folder as training wrote them."""
        return {path.name.partition(".")[0] for path in self.out.glob("*.safetensors")}

    @property
    def private(self) -> LocalStore:
        return LocalStore(self.out / "content")

    def warnings(self) -> list[str]:
        """All but that of the clock, which a test turns on at will."""
        texts = [notice.text for notice in self.notices if notice.level == "warning"]
        return [text for text in texts if "this machine's clock" not in text]

    def close(self) -> None:
        self.miner.close()
        self.journal.close()
