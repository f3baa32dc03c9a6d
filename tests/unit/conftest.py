"""anvil, where npm installed it: a chain that can take blocks back."""

from __future__ import annotations

import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pouw.chain.rpc import Endpoint
from pouw.errors import ChainUnavailable

_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
ANVIL = (
    Path(__file__).parents[2]
    / f"node_modules/@foundry-rs/anvil-{platform.system().lower()}-{_MACHINE}/bin/anvil"
)


@contextmanager
def anvil(*options: str) -> Iterator[str]:
    """The address of an anvil of its own, started with ``options``."""
    if not ANVIL.exists():
        pytest.skip("anvil is not installed (npm ci)")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([ANVIL, "--silent", "--port", str(port), *options])
    url = f"http://127.0.0.1:{port}"
    try:
        _await_chain(url)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def anvil_url() -> Iterator[str]:
    with anvil() as url:
        yield url


@pytest.fixture
def hour_old_anvil() -> Iterator[str]:
    """A block a second, and an hour behind this machine's clock, which so is an hour ahead."""
    with anvil("--block-time", "1", "--timestamp", str(int(time.time()) - 3600)) as url:
        yield url


@pytest.fixture
def idle_anvil() -> Iterator[str]:
    """The right time, and a latest block of an hour ago: it mines only what it is sent."""
    with anvil("--timestamp", str(int(time.time()) - 3600)) as url:
        endpoint = Endpoint.connect(url)
        endpoint.request("evm_increaseTime", 3600)
        endpoint.close()
        yield url


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
