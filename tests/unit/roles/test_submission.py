"""A miner's bond, on a chain that takes blocks back (anvil)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from one_round import (
    ETHER,
    LATER,
    PARAMETERS,
    PUBLISHER,
    ROUND,
    SALT,
    TEST_KEY,
    WINNER,
    Stage,
)
from tiny_task import tiny_spec

from pouw.chain.rpc import Endpoint
from pouw.hashing import data_key_of, key_hash_of
from pouw.journal import Journal
from pouw.roles.base import Notice, Setup
from pouw.roles.miner import Miner, MinerOptions
from pouw.roles.submission import REVEALS
from pouw.storage.local import LocalStore
from pouw.types import EntryState, RoundNumber, Verdict

CONFIRMATIONS = 3
NEXT = RoundNumber(2)


class World:
    """A closed round in which the miner's claim was true, and a home that knows of its reveal."""

    def __init__(self, endpoint: Endpoint, home: Path, journal: Journal) -> None:
        self.endpoint, self.journal = endpoint, journal
        self.stage = Stage(endpoint)
        self.stage.play({WINNER: 900_000, LATER: 800_000}, Verdict.WINNER)
        self.mine(CONFIRMATIONS)
        journal.put(REVEALS, str(ROUND), False)
        self.notices: list[Notice] = []
        store = LocalStore(home / "store")
        arena = self.stage.clients[LATER]
        self.setup = Setup(arena, store, home, journal, CONFIRMATIONS, 0, self.notices.append)

    @property
    def state(self) -> EntryState:
        return self.setup.arena.entry(ROUND, self.setup.arena.sender.address).state

    @property
    def credit_wei(self) -> int:
        return self.setup.arena.credit(self.setup.arena.sender.address)

    def mine(self, blocks: int) -> None:
        self.endpoint.request("anvil_mine", hex(blocks))

    def take_back(self, snapshot: str) -> None:
        """Other blocks in place of those since ``snapshot``; their transactions are dropped."""
        lost = self.endpoint.block_number()
        assert self.endpoint.request("evm_revert", snapshot)
        self.mine(lost - self.endpoint.block_number())

    def steps(self, count: int) -> list[str]:
        """What a miner does in so many steps that was just started."""
        miner = Miner(self.setup, MinerOptions(), inline=True)
        try:
            return [miner.run_once().doing for _ in range(count)]
        finally:
            miner.close()


@pytest.fixture
def world(anvil_url: str, tmp_path: Path) -> Iterator[World]:
    endpoint = Endpoint.connect(anvil_url)
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield World(endpoint, tmp_path, journal)
    endpoint.close()


def test_reclaim__its_block_is_taken_back__is_sent_again(world: World) -> None:
    snapshot = world.endpoint.request("evm_snapshot")
    assert world.steps(2) == ["reclaim the bond", "withdraw"]
    world.take_back(snapshot)
    assert (world.state, world.credit_wei) == (EntryState.REVEALED, 0)

    assert world.steps(3) == ["reclaim the bond", "withdraw", "wait"]

    assert (world.state, world.credit_wei) == (EntryState.RECLAIMED, 0)


def test_withdraw__its_block_is_taken_back__is_sent_again(world: World) -> None:
    assert world.steps(1) == ["reclaim the bond"]
    owed = world.credit_wei
    snapshot = world.endpoint.request("evm_snapshot")
    assert world.steps(1) == ["withdraw"]
    world.take_back(snapshot)
    assert world.credit_wei == owed > 0

    assert world.steps(2) == ["withdraw", "wait"]


def test_reclaim__confirmed__is_asked_for_no_more(world: World) -> None:
    assert world.steps(2) == ["reclaim the bond", "withdraw"]
    assert world.journal.get(REVEALS, str(ROUND)) is False
    world.mine(CONFIRMATIONS)
    assert world.steps(1) == ["wait"]
    assert world.journal.get(REVEALS, str(ROUND)) is True


def test_reclaim__round_is_closed_in_a_block_to_be_confirmed__is_sent(world: World) -> None:
    """Of a reveal that the confirmed block does not show yet, nothing is settled."""
    world.setup = Setup(
        world.setup.arena,
        world.setup.store,
        world.setup.home,
        world.journal,
        confirmations=world.endpoint.block_number(),
        from_block=0,
        notify=world.notices.append,
    )
    assert world.steps(1) == ["reclaim the bond"]
    assert world.journal.get(REVEALS, str(ROUND)) is False


def test_miner__has_to_reveal_and_a_bond_lies_in_a_closed_round__takes_it_out_beside(
    anvil_url: str, tmp_path: Path
) -> None:
    """What was left with one reveal may be all there is for the next."""
    endpoint, spec = Endpoint.connect(anvil_url), tiny_spec()
    stage = Stage(endpoint, spec.digest())
    publisher, arena = stage.clients[PUBLISHER], stage.clients[LATER]
    publisher.publish(spec.digest(), key_hash_of(TEST_KEY), 1, ETHER // 2)
    stage.play({LATER: 900_000}, Verdict.NO_TRUE_CLAIM)
    publisher.release_data_key(data_key_of(TEST_KEY))
    commitment = arena.commitment_of(NEXT, arena.sender.address, b"m" * 32, SALT)
    arena.commit(NEXT, commitment)
    stage.wait(PARAMETERS.phase1)
    publisher.open_test(TEST_KEY)
    store = LocalStore(tmp_path / "store")
    store.put_bytes(spec.encode())
    with Journal(tmp_path / "journal.sqlite") as journal:
        setup = Setup(arena, store, tmp_path, journal, 1, 0, print)
        record = {"manifest": (b"m" * 32).hex(), "salt": SALT.hex(), "step": 1}
        journal.put("commitments", f"{NEXT}/{commitment[:22].hex()}", record)
        journal.put("scores", str(NEXT), 900_000)
        journal.put(REVEALS, str(ROUND), False)
        miner = Miner(setup, MinerOptions(), inline=True)
        steps = [miner.run_once().doing for _ in range(2)]
        miner.close()

    assert steps == ["reveal", "reveal"]
    assert arena.entry(ROUND, arena.sender.address).state is EntryState.RECLAIMED
    assert arena.credit(arena.sender.address) == 0
    endpoint.close()


def test_miner__reclaim_waits_for_a_block__prepares_the_selected_task_meanwhile(
    world: World,
) -> None:
    spec = tiny_spec()
    world.setup.store.put_bytes(spec.encode())
    publisher = world.stage.clients[PUBLISHER]
    publisher.publish(spec.digest(), key_hash_of(b"k" * 32), 1, ETHER // 4)
    world.endpoint.request("evm_setAutomine", False)
    miner = Miner(world.setup, MinerOptions(trial=False))
    prepared = world.setup.home / "tasks" / "2" / "spec.json"
    try:
        until = time.monotonic() + 20
        while not prepared.exists():
            assert time.monotonic() < until
            assert miner.run_once().doing == "reclaim the bond"
            time.sleep(0.05)
    finally:
        world.endpoint.request("evm_setAutomine", True)
        world.mine(1)
        miner.close()
