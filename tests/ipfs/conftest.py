"""Daemons for the session; each is a copy of one repository, since making it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon, make_repository

from pouw.storage.ipfs import IpfsStore


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("ipfs") / "repository")


@pytest.fixture(scope="session")
def daemons(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Daemon, Daemon]]:
    """Two that know nothing of each other."""
    folder = tmp_path_factory.mktemp("daemons")
    started = (Daemon(repository, folder / "one"), Daemon(repository, folder / "two"))
    try:
        for daemon in started:
            daemon.wait()
        yield started
    finally:
        for daemon in started:
            daemon.close()


@pytest.fixture
def daemon(daemons: tuple[Daemon, Daemon]) -> Daemon:
    return daemons[0]


@pytest.fixture
def store(daemon: Daemon) -> Iterator[IpfsStore]:
    store = IpfsStore(daemon.rpc, search_seconds=1)
    yield store
    store.close()
