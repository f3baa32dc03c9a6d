"""A real chain for each test: the embedded one, and anvil."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.types import ZERO_ADDRESS, Address, Parameters


@pytest.fixture
def devnet(tmp_path: Path) -> Iterator[Devnet]:
    """The embedded chain with wall-clock blocks."""
    with Devnet(tmp_path / "chain", port=0) as running:
        yield running


@pytest.fixture(params=["devnet", "anvil"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A chain that closes a block for each transaction; the same tests run on both."""
    if request.param == "anvil":
        yield request.getfixturevalue("anvil_url")
        return
    with Devnet(tmp_path / "chain", port=0, block_seconds=0) as running:
        yield running.url


@pytest.fixture
def endpoint(url: str) -> Iterator[Endpoint]:
    connected = Endpoint.connect(url)
    yield connected
    connected.close()


@pytest.fixture
def advance(endpoint: Endpoint) -> Callable[[int], None]:
    """Let that many seconds pass and close a block."""

    def pass_time(seconds: int) -> None:
        endpoint.request("evm_increaseTime", seconds)
        endpoint.request("evm_mine")

    return pass_time


def address(index: int) -> Address:
    return Address(dev_account(index).address)


PARAMETERS = Parameters(
    asset=ZERO_ADDRESS,
    phase1=600,
    key_window=100,
    reveal_window=100,
    report_window=100,
    challenge_window=100,
    ruling_window=100,
    min_reward=10**15,
    publisher_bond_bps=1000,
    oracle_fee_bps=500,
    miner_bond=10**16,
    challenge_bond=10**16,
    oracles=(address(5), address(6), address(7)),
    threshold=2,
    arbiter=address(8),
)


@pytest.fixture
def parameters() -> Parameters:
    return PARAMETERS


@pytest.fixture
def clients(endpoint: Endpoint) -> list[ArenaClient]:
    """One arena, seen by each of the ten development accounts."""
    deployed = deploy(Sender(endpoint, dev_account(0)), PARAMETERS)
    return [
        ArenaClient(Sender(endpoint, dev_account(index)), deployed.address) for index in range(10)
    ]
