"""What a miner commits to, on a chain of its own (anvil), its training played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from committing import Machine, World

from pouw.chain.rpc import Endpoint
from pouw.hashing import raw_cid
from pouw.roles.keeping import files_of
from pouw.storage.cid import cid_of_bytes


@pytest.fixture
def world(anvil_url: str, tmp_path: Path) -> Iterator[World]:
    endpoint = Endpoint.connect(anvil_url)
    yield World(endpoint, tmp_path)
    endpoint.close()


@pytest.fixture
def machine(world: World) -> Iterator[Machine]:
    machine = Machine(world)
    yield machine
    machine.close()


def test_miner__snapshot_appears__its_checkpoint_is_in_the_private_store_before_a_commitment(
    world: World, machine: Machine
) -> None:
    world.begin()
    machine.train(100)
    assert machine.run_once() == "commit"
    machine.train(101, dice_ppm=1)  # of a collapse
    data = (machine.out / "checkpoint-00000101.safetensors").read_bytes()
    machine.run_once()
    assert len(world.commitments()) == 1
    assert machine.private.has(cid_of_bytes(data))


def test_commit__checkpoints_were_kept_before__reads_none_of_them_again(
    world: World, machine: Machine
) -> None:
    world.begin()
    machine.train(100)
    machine.run_once()
    before = machine.manifest().checkpoints
    machine.restart()
    (machine.out / "checkpoint-00000100.safetensors").unlink(missing_ok=True)
    machine.train(200)
    machine.run_once()
    assert machine.committed_step() == 200
    assert machine.manifest().checkpoints[0] == before[0]


@pytest.mark.parametrize("first", [True, False])
def test_commit__nobody_saw_it_included_before_a_restart__is_sent_once(
    world: World, machine: Machine, first: bool
) -> None:
    """The same snapshot is the same commitment: where the earliest wins, a later one costs."""
    world.begin(first=first)
    machine.train(100)
    machine.patience_seconds = 1.0
    world.endpoint.request("evm_setAutomine", False)
    for _ in range(2):
        machine.restart()
        assert machine.run_once() == "commit"
    world.endpoint.request("evm_mine")
    assert machine.run_once() == "train"
    assert machine.committed_step() == 100
    assert len(world.commitments()) == 1


@pytest.mark.parametrize("first", [True, False])
def test_commit__a_node_is_behind__is_not_sent_again(
    world: World, machine: Machine, first: bool
) -> None:
    world.begin(first=first)
    machine.train(100)
    assert machine.run_once() == "commit"
    for behind in (1, 2):
        machine.arena.behind = behind
        assert machine.run_once() == "train"
    world.mine(1)
    assert machine.run_once() == "train"
    assert len(world.commitments()) == 1


def test_commit__a_node_is_behind_and_shows_the_one_before__is_not_sent_again(
    world: World, machine: Machine
) -> None:
    world.begin()
    for step in (100, 200):
        machine.train(step)
        assert machine.run_once() == "commit"
    machine.arena.behind = 1
    assert machine.run_once() == "train"
    assert len(world.commitments()) == 2


def test_commit__its_block_is_taken_back__is_sent_again(world: World, machine: Machine) -> None:
    world.begin()
    snapshot = world.endpoint.request("evm_snapshot")
    machine.train(100)
    assert machine.run_once() == "commit"
    lost = world.endpoint.block_number()
    assert world.endpoint.request("evm_revert", snapshot)
    assert machine.run_once() == "train"  # no block came yet in place of the lost one
    world.mine(lost - world.endpoint.block_number())
    assert machine.committed_step() is None
    assert machine.run_once() == "commit"
    assert machine.committed_step() == 100
    assert len(world.commitments()) == 1


@pytest.mark.parametrize("first", [True, False])
def test_commit__another_machine_has_the_key__each_commits_its_own_once_and_says_so(
    world: World, first: bool
) -> None:
    """Only the last commitment can be revealed, and only where it was made."""
    world.begin(first=first)
    laptop, server = Machine(world, "laptop"), Machine(world, "server")
    for machine in (laptop, server):
        machine.train(100)
    for _ in range(3):
        for machine in (laptop, server):
            machine.run_once()
    assert len(world.commitments()) == 2
    assert (laptop.committed_step(), server.committed_step()) == (None, 100)
    assert [text for text in laptop.warnings() if "another machine" in text] == laptop.warnings()
    assert len(laptop.warnings()) == len(server.warnings()) == 1
    for machine in (laptop, server):
        machine.close()


def test_commit__another_machine_has_the_key_and_there_is_a_better_snapshot__is_sent(
    world: World,
) -> None:
    world.begin()
    laptop, server = Machine(world, "laptop"), Machine(world, "server")
    for machine in (laptop, server):
        machine.train(100)
        machine.run_once()
    laptop.train(200)
    assert laptop.run_once() == "commit"
    assert (laptop.committed_step(), server.committed_step()) == (200, None)
    for machine in (laptop, server):
        machine.close()


def test_miner__chain_holds_another_machines_commitment_at_the_end__does_not_score_for_it(
    world: World,
) -> None:
    world.begin()
    laptop, server = Machine(world, "laptop"), Machine(world, "server")
    for machine in (laptop, server):
        machine.train(100)
        machine.run_once()
    world.open_test()
    laptop.journal.put("scores", "1", 900_000)
    assert laptop.run_once() == "wait"
    for machine in (laptop, server):
        machine.close()


def test_miner__reveals__serves_what_it_committed_and_takes_the_reveal_for_nobody_elses(
    world: World, machine: Machine
) -> None:
    world.begin()
    machine.train(100)
    machine.run_once()
    manifest = machine.manifest()
    cids = [cid for cid, _ in files_of(manifest)]
    assert not any(world.store.has(cid) for cid in cids)
    world.open_test()
    machine.journal.put("scores", "1", 900_000)
    assert not any(world.store.has(cid) for cid in cids)
    assert [machine.run_once() for _ in range(2)] == ["reveal", "wait"]
    assert world.store.pins() == {*cids, raw_cid(manifest.digest())}
    assert machine.warnings() == []
