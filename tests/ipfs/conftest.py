"""Daemons for the session; each is a copy of one repository, since making it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon, make_repository

from pouw.storage.ipfs import IpfsStore


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ipfs")


@pytest.fixture(scope="session")
def repository(folder: Path) -> Path:
    return make_repository(folder / "repository")


@pytest.fixture(scope="session")
def daemon(repository: Path, folder: Path) -> Iterator[Daemon]:
    with Daemon(repository, folder / "one") as daemon:
        daemon.wait()
        yield daemon


@pytest.fixture(scope="session")
def daemons(daemon: Daemon, repository: Path, folder: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """Two that know nothing of each other."""
    with Daemon(repository, folder / "two") as other:
        other.wait()
        yield daemon, other


@pytest.fixture
def store(daemon: Daemon) -> Iterator[IpfsStore]:
    store = IpfsStore(daemon.rpc, search_seconds=1)
    yield store
    store.close()
