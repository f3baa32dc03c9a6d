"""What an oracle fetches of a claim, from a miner's served store, and what is left of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tiny_task import tiny_spec, write_tiny_set

from pouw.documents import Checkpoint, Judged, Manifest, Provenance, TaskSpec
from pouw.events import Revealed
from pouw.hashing import raw_cid, round_seed
from pouw.journal import Journal
from pouw.ml.requests import Engine, TrainingRequest, TrainingSettings
from pouw.roles.base import Errands, Setup
from pouw.roles.candidates import Candidates
from pouw.roles.keeping import Keeper
from pouw.roles.manifests import build_manifest
from pouw.roles.patience import Patience
from pouw.roles.processes import read_snapshots
from pouw.roles.provenance import Provenance as Checkpoints
from pouw.storage.gateway import GatewayStore
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors
from pouw.storage.serve import Server
from pouw.storage.store import copy
from pouw.types import ZERO_ADDRESS, ZERO_WORD, Address, RoundNumber, Task, TaskId

NUMBER = RoundNumber(3)
MINER = Address("0x2Fcb07a7a2E3bd9Dc044c8FCb3744de456AeBDF3")
DATA_KEY = b"\x01" * 32
SPEC = tiny_spec(provenance=Provenance(policy="replay", segment_steps=5, segments=2))
TASK = Task(
    TaskId(1), ZERO_ADDRESS, 1, NUMBER, False, False, 1, TaskId(0), TaskId(0), ZERO_WORD, ZERO_WORD
)
NOBODY: Any = None  # no chain is asked


@dataclass(frozen=True)
class Trained:
    """A miner's private store, and the manifest of what it trained: four linked checkpoints."""

    store: LocalStore
    manifest: Manifest


class Counting(GatewayStore):
    """A gateway's client that counts what it asks for."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked = Counter[str]()

    def fetch(self, cid: str) -> memoryview:
        self.asked[cid] += 1
        return super().fetch(cid)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("training")
    request = TrainingRequest(
        spec=SPEC,
        data=write_tiny_set(folder / "data"),
        out=folder / "out",
        seed="0x" + round_seed(DATA_KEY, NUMBER, MINER).hex(),
        stop_at_ms=int(time.time() * 1000) + 300_000,
        max_steps=20,
        engine=Engine(device="cpu"),
        settings=TrainingSettings(batch_size=2),
    )
    request.out.mkdir()
    path = request.out / "request.json"
    path.write_text(request.line())
    subprocess.run([sys.executable, "-m", "pouw.ml.training", str(path)], check=True)
    store = LocalStore(folder / "private")
    last = read_snapshots(request.out)[-1]
    manifest = build_manifest(store, request.out, SPEC, TASK, NUMBER, MINER, last)
    assert len(manifest.checkpoints) == 4
    return Trained(store, manifest)


class World:
    """An oracle whose own place is empty, and what the miner serves."""

    def __init__(self, folder: Path, journal: Journal, trained: Trained, url: str) -> None:
        self.home = folder / "oracle"
        self.home.mkdir()
        self.served = LocalStore(folder / "served")
        self.own = LocalStore(folder / "own")
        self.gateway = Counting(url)
        self.trained = trained
        store = Mirrors([("own", self.own), ("miner", self.gateway)])
        self.setup = Setup(NOBODY, store, self.home, journal, 1, 0, lambda _: None)
        self.errands = Errands(self.setup, inline=True)
        self.checkpoints = Checkpoints(self.setup)
        self.spec: TaskSpec = SPEC

    def serve(self, manifest: Manifest, *, without: tuple[str, ...] = ()) -> Revealed:
        """Everything that the manifest names, except some; its reveal."""
        self.served.put_bytes(manifest.encode())
        for cid in {*(each.cid for each in manifest.checkpoints), manifest.model.cid}:
            if cid not in without:
                copy(cid, self.trained.store, self.served)
        fields = dict.fromkeys(Revealed.__struct_fields__, 0)
        known = {"round": NUMBER, "miner": MINER, "manifest_digest": manifest.digest()}
        return Revealed(**{**fields, **known})

    def candidates(self) -> Candidates:
        """Those of an oracle that has just been started."""
        return Candidates(
            self.setup,
            self.errands,
            NUMBER,
            TASK,
            self.spec,
            self.checkpoints,
            DATA_KEY,
            Keeper(self.setup, self.errands),
            Patience(now=0, late=100, last_look=0, asked_by=0, archives_by=0),
        )

    def examine(self, event: Revealed) -> Judged | str | None:
        """What an oracle that has just been started finds; "": nothing, None: something is missing.

        As if its score had shown the claim to be true.
        """
        candidates = self.candidates()
        candidates.fetch([event])
        found = candidates.found(event)
        if not isinstance(found, Path) or self.spec.provenance.policy == "none":
            return "" if isinstance(found, Path) else found
        fault = candidates.chain_fault(event)
        if fault is not None:
            candidates.drop(event)
        return fault

    def files(self) -> list[Path]:
        """What is left in the oracle's home, its journal and log aside."""
        return [path for path in (self.home / "models").rglob("*") if path.is_file()]


@pytest.fixture
def world(tmp_path: Path, trained: Trained) -> Iterator[World]:
    with (
        Server(LocalStore(tmp_path / "served"), "127.0.0.1", 0) as server,
        Journal(tmp_path / "journal.sqlite") as journal,
    ):
        made = World(tmp_path, journal, trained, server.url)
        yield made
        made.checkpoints.close()
        made.errands.close()
        made.gateway.close()


def with_chain(manifest: Manifest, *checkpoints: Checkpoint) -> Manifest:
    """The manifest with other checkpoints, each naming the one before."""
    chain: list[Checkpoint] = []
    for each in checkpoints:
        previous = chain[-1].cid if chain else None
        chain.append(each.model_copy(update={"previous": previous}))
    return manifest.model_copy(update={"checkpoints": tuple(chain)})


def test_examine__honest__every_block_is_fetched_once_and_kept(world: World) -> None:
    manifest = world.trained.manifest
    assert world.examine(world.serve(manifest)) == ""
    named = {*(each.cid for each in manifest.checkpoints), manifest.model.cid}
    assert world.own.pins() == named | {raw_cid(manifest.digest())}
    for cid in named:
        world.own.verify(cid)
    assert not world.files(), "everything lies in the store now, and nowhere else"
    # The manifest is asked for when it is judged and again when it is kept.
    del world.gateway.asked[raw_cid(manifest.digest())]
    assert set(world.gateway.asked.values()) == {1}


def test_examine__score_not_known_yet__no_checkpoint_is_asked_for(world: World) -> None:
    manifest = world.trained.manifest
    event = world.serve(manifest)
    candidates = world.candidates()
    candidates.fetch([event])
    assert isinstance(candidates.found(event), Path)
    assert world.own.pins() == {manifest.model.cid, raw_cid(manifest.digest())}
    assert not {each.cid for each in manifest.checkpoints} & set(world.gateway.asked)


def test_examine__second_checkpoint_not_linked__none_after_it_is_asked_for_and_none_stays(
    world: World,
) -> None:
    first, second, third, fourth = world.trained.manifest.checkpoints
    forged = second.model_copy(update={"cid": first.cid, "bytes": first.bytes})
    manifest = with_chain(world.trained.manifest, first, forged, third, fourth)
    # The miner need not even have what stands behind the fault.
    found = world.examine(world.serve(manifest, without=(third.cid, fourth.cid)))
    assert isinstance(found, str)
    assert "the checkpoint of step 10" in found
    assert not {third.cid, fourth.cid} & set(world.gateway.asked)
    assert world.own.pins() == {manifest.model.cid, raw_cid(manifest.digest())}
    assert not world.own.has(first.cid)
    assert not world.files()


def test_examine__forged_and_names_what_was_pinned_before__that_stays(world: World) -> None:
    first, second, *rest = world.trained.manifest.checkpoints
    copy(first.cid, world.trained.store, world.own)
    world.own.pin(first.cid)
    forged = second.model_copy(update={"cid": first.cid, "bytes": first.bytes})
    manifest = with_chain(world.trained.manifest, first, forged, *rest)
    assert world.examine(world.serve(manifest))
    assert world.own.pins() == {first.cid, manifest.model.cid, raw_cid(manifest.digest())}
    world.own.verify(first.cid)


def test_examine__declared_larger_than_the_spec_allows__not_one_checkpoint_is_asked_for(
    world: World,
) -> None:
    manifest = world.trained.manifest
    total = sum(each.bytes for each in manifest.checkpoints)
    caps = SPEC.caps.model_copy(update={"checkpoints_bytes": total - 1})
    world.spec = SPEC.model_copy(update={"caps": caps})
    found = world.examine(world.serve(manifest))
    assert isinstance(found, Judged)
    assert found.detail == f"its checkpoints have {total} bytes together, {total - 1} allowed"
    assert set(world.gateway.asked) == {raw_cid(manifest.digest())}


def test_examine__third_checkpoint_comes_late__the_first_two_are_not_fetched_again(
    world: World,
) -> None:
    manifest = world.trained.manifest
    third = manifest.checkpoints[2]
    event = world.serve(manifest, without=(third.cid,))
    assert world.examine(event) is None
    assert not {each.cid for each in manifest.checkpoints} & world.own.pins()
    asked = world.gateway.asked.copy()
    world.serve(manifest)
    world.errands._not_before.clear()
    assert world.examine(event) == ""
    again = world.gateway.asked - asked
    assert not {each.cid for each in manifest.checkpoints[:2]} & set(again)


def test_examine__no_provenance_asked_for__the_model_alone_is_kept(world: World) -> None:
    world.spec = SPEC.model_copy(update={"provenance": Provenance(policy="none")})
    manifest = world.trained.manifest
    assert world.examine(world.serve(manifest)) == ""
    assert world.own.pins() == {manifest.model.cid, raw_cid(manifest.digest())}


def test_examine__this_machine_out_of_memory_again_and_again__finds_nothing(world: World) -> None:
    """A system without memory left ends the process that checks by SIGKILL."""
    event = world.serve(world.trained.manifest)
    replayer = world.checkpoints._replayer
    for _ in range(3):
        replayer.warm()
        assert replayer._child is not None
        replayer._child.kill()
        world.errands._not_before.clear()
        assert world.examine(event) is None
    world.errands._not_before.clear()
    assert world.examine(event) == ""


def test_drop__copycat_of_the_same_manifest__what_is_not_his_stays(world: World) -> None:
    event = world.serve(world.trained.manifest)
    copycat = msgspec.structs.replace(event, miner=Address("0x" + "1" * 40))
    candidates = world.candidates()
    candidates.fetch([event])
    candidates.fetch([copycat])
    assert isinstance(candidates.found(copycat), Judged)
    candidates.drop(copycat)
    found = candidates.found(event)
    assert isinstance(found, Path)
    assert found.exists()
    candidates.drop(event)
    assert not world.files()
