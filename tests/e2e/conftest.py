"""Two real chains to play the story on: the embedded one and anvil."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.errors import ChainUnavailable

_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
ANVIL = (
    Path(__file__).parents[2]
    / f"node_modules/@foundry-rs/anvil-{platform.system().lower()}-{_MACHINE}/bin/anvil"
)


@pytest.fixture(scope="module", params=["devnet", "anvil"])
def rpc_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if request.param == "devnet":
        folder = tmp_path_factory.mktemp("chain")
        with Devnet(folder / "chain", port=0, block_seconds=0) as devnet:
            yield devnet.url
        return
    with _anvil() as url:
        yield url


@pytest.fixture
def anvil_url() -> Iterator[str]:
    with _anvil() as url:
        yield url


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with Devnet(tmp_path / "chain", port=0, block_seconds=0) as running:
        connected = Endpoint.connect(running.url)
        yield connected
        connected.close()


@pytest.fixture
def advance(endpoint: Endpoint) -> Callable[[int], None]:
    def pass_time(seconds: int) -> None:
        endpoint.request("evm_increaseTime", seconds)
        endpoint.request("evm_mine")

    return pass_time


@contextmanager
def _anvil() -> Iterator[str]:
    """A chain of its own, which can take blocks back."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    executable = str(ANVIL) if ANVIL.exists() else shutil.which("anvil")
    assert executable, "anvil is missing: run npm ci"
    with subprocess.Popen(
        [executable, "--port", str(port), "--silent"],
        stdout=subprocess.DEVNULL,
    ) as process:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url)
        yield url
        process.terminate()


def _wait_for(url: str) -> None:
    for _ in range(100):
        try:
            Endpoint.connect(url).block_number()
        except ChainUnavailable:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{url} does not answer")
