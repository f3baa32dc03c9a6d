"""A real chain for each test: the embedded one, and anvil where npm installed it."""

from __future__ import annotations

import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.errors import ChainUnavailable
from pouw.types import ZERO_ADDRESS, Address, Parameters

_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
ANVIL = (
    Path(__file__).parents[3]
    / f"node_modules/@foundry-rs/anvil-{platform.system().lower()}-{_MACHINE}/bin/anvil"
)


@pytest.fixture
def devnet(tmp_path: Path) -> Iterator[Devnet]:
    """The embedded chain with wall-clock blocks."""
    with Devnet(tmp_path / "chain", port=0) as running:
        yield running


@pytest.fixture
def anvil_url() -> Iterator[str]:
    if not ANVIL.exists():
        pytest.skip("anvil is not installed (npm ci)")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([ANVIL, "--silent", "--port", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        _await_chain(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def _await_chain(url: str) -> None:
    deadline = time.monotonic() + 20
    endpoint = Endpoint.connect(url)
    try:
        while True:
            try:
                endpoint.block_number()
            except ChainUnavailable:
                if time.monotonic() > deadline:
                    raise
            else:
                return
    finally:
        endpoint.close()


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
