"""What a miner's home holds of a round, and for how long: anvil, its training played."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from committing import Machine, World
from hypothesis import given
from hypothesis import strategies as some
from one_round import ROUND
from test_decisions import TASK, snapshot
from tiny_task import tiny_spec

from pouw.chain.rpc import Endpoint
from pouw.documents import Provenance
from pouw.roles.miner import choose_snapshot
from pouw.roles.rounds import folder_of, let_go, outdone, rounds_in
from pouw.roles.submission import REVEALS, Submission
from pouw.storage.cid import cid_of_bytes
from pouw.types import RoundNumber


@pytest.fixture
def endpoint(anvil_url: str) -> Iterator[Endpoint]:
    endpoint = Endpoint.connect(anvil_url)
    yield endpoint
    endpoint.close()


@pytest.fixture
def world(endpoint: Endpoint, tmp_path: Path) -> World:
    return World(endpoint, tmp_path)


@pytest.fixture
def machine(world: World) -> Iterator[Machine]:
    world.begin()
    machine = Machine(world)
    yield machine
    machine.close()


def blocks(machine: Machine) -> set[str]:
    return {path.name for path in machine.out.glob("content/blocks/*/*")}


def test_miner__checkpoint_is_in_the_private_store__its_file_stays_while_it_is_one_of_the_last_two(
    machine: Machine,
) -> None:
    machine.train(100)
    machine.run_once()
    assert "checkpoint-00000100" in machine.files()
    first = cid_of_bytes((machine.out / "checkpoint-00000100.safetensors").read_bytes())
    for step in (101, 102):
        machine.train(step, dice_ppm=1)
        machine.run_once()
    assert "checkpoint-00000100" not in machine.files()
    assert {"checkpoint-00000101", "checkpoint-00000102"} < machine.files()
    assert machine.private.has(first)


def test_miner__training_took_a_damaged_snapshot_back__believes_nothing_noted_of_its_files(
    machine: Machine,
) -> None:
    for step in (100, 200):
        machine.train(step)
        machine.run_once()
    before = machine.manifest()
    assert [one.step for one in machine.folder.drop_last()] == [100]
    assert machine.run_once() == "train"
    again = machine.train(200, dice_ppm=910_000)
    (machine.out / again.model).write_bytes(b"another model")
    (machine.out / again.checkpoint).write_bytes(b"another checkpoint")
    machine.train(400)
    machine.run_once()
    assert machine.committed_step() == 400
    first, second, _ = machine.manifest().checkpoints
    assert first == before.checkpoints[0]
    assert second.cid == cid_of_bytes(b"another checkpoint")
    assert machine.private.has(before.model.cid)


def test_miner__task_asks_for_no_provenance__keeps_two_checkpoints_and_no_copy(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    world = World(endpoint, tmp_path, tiny_spec(provenance=Provenance(policy="none")))
    world.begin()
    machine = Machine(world)
    for step in (100, 200, 300):
        machine.train(step)
    for _ in range(2):
        machine.run_once()
    assert machine.files() == {
        f"{kind}-00000{step}" for kind in ("checkpoint", "model") for step in (200, 300)
    }
    assert len(blocks(machine)) == len({"model", "manifest"})
    machine.close()


def test_miner__snapshot_is_outdone_and_was_not_committed__its_model_is_deleted(
    machine: Machine,
) -> None:
    machine.train(100)
    machine.run_once()
    machine.train(110)
    machine.train(120)
    machine.train(130, dice_ppm=1)
    for _ in range(2):
        machine.run_once()
    assert machine.committed_step() == 120
    assert machine.files() - {"checkpoint-00000120", "checkpoint-00000130"} == {
        "model-00000100",
        "model-00000120",
        "model-00000130",
    }


DICE = some.integers(0, 10).map(lambda tenths: tenths * 100_000)


VALIDATIONS = some.tuples(DICE, some.integers(0, 2))


@given(
    some.lists(VALIDATIONS, min_size=1, max_size=12), DICE, some.integers(1, 12), some.booleans()
)
def test_choose_snapshot__whatever_comes_later__takes_none_that_was_outdone(
    found: list[tuple[int, int]], min_score: int, then: int, first: bool
) -> None:
    snapshots = [
        snapshot(step, dice, cases=cases) for step, (dice, cases) in enumerate(found, start=1)
    ]
    deleted = outdone(snapshots[:then], replace(TASK, first=first, min_score=min_score))
    for committed in (None, *snapshots[:then]):
        last = committed and Submission(b"", b"", committed.step)
        chosen = choose_snapshot(snapshots, last, first=first, min_score=min_score, final=True)
        assert chosen not in deleted


def test_miner__round_is_closed_and_its_bond_is_back__only_what_is_served_stays(
    world: World, machine: Machine
) -> None:
    machine.train(100)
    machine.run_once()
    world.open_test()
    machine.journal.put("scores", str(ROUND), 900_000)
    assert machine.run_once() == "reveal"
    world.close_round()
    assert machine.run_once() == "reclaim the bond"
    assert blocks(machine)
    assert machine.files()
    for _ in range(3):
        machine.run_once()
    assert machine.journal.get(REVEALS, str(ROUND)) is True
    assert not blocks(machine)
    assert not machine.files()
    assert (machine.out / "snapshots.jsonl").exists()
    assert len(world.store.pins()) == len({"checkpoint", "model", "manifest"})
    for cid in world.store.pins():
        world.store.verify(cid)


def test_miner__round_is_closed_and_nothing_was_revealed__its_weights_go(
    world: World, machine: Machine
) -> None:
    machine.train(100)
    machine.run_once()
    world.open_test()
    machine.miner.run_once()
    assert machine.files()
    world.close_round()
    for _ in range(2):
        machine.run_once()
    assert not blocks(machine)
    assert not machine.files()


def test_let_go__many_rounds__records_of_the_last_ten_stay(tmp_path: Path) -> None:
    for number in range(1, 15):
        folder = folder_of(tmp_path, RoundNumber(number))
        (folder / "content").mkdir(parents=True)
        for name in ("model-00000001.safetensors", "progress.jsonl"):
            (folder / name).write_text(name)
    over = rounds_in(tmp_path)[:-1]
    for number in over:
        let_go(tmp_path, number)
    assert rounds_in(tmp_path) == list(range(5, 15))
    for number in range(5, 14):
        folder = folder_of(tmp_path, RoundNumber(number))
        assert [path.name for path in folder.iterdir()] == ["progress.jsonl"]
    assert len(list(folder_of(tmp_path, RoundNumber(14)).iterdir())) == 3
