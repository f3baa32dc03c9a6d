"""What a miner commits to, on a chain of its own (anvil), its training played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from committing import Machine, World

from pouw.chain.rpc import Endpoint
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
