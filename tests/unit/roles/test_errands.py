"""Errands that take longer than a step of a role, and their end."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

from pouw.journal import Journal
from pouw.roles.base import Errands, Setup
from pouw.storage.block import cid_of_bytes
from pouw.storage.gateway import GatewayStore
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors

NOBODY: Any = None  # no chain is asked


def test_close__one_under_way_one_waits__first_ends_second_is_never_begun(tmp_path: Path) -> None:
    begun, may_end, done = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        begun.set()
        assert may_end.wait(10)
        done.append("first")

    with Journal(tmp_path / "journal.sqlite") as journal:
        store = LocalStore(tmp_path / "store")
        errands = Errands(Setup(NOBODY, store, tmp_path, journal, 1, 0, lambda notice: None))
        errands.prepare("first", first)
        errands.prepare("second", lambda: done.append("second"))
        assert begun.wait(10)
        threading.Timer(0.2, may_end.set).start()
        errands.close()

    assert done == ["first"]
    assert not errands.under_way("second")


def test_finish__fetch_under_way__is_completed(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        own, other = LocalStore(tmp_path / "own"), LocalStore(tmp_path / "other")
        cid, may_go_on = other.put_bytes(b"theirs"), threading.Event()
        store = Mirrors([("own", own), ("other", other)])
        setup = Setup(NOBODY, store, tmp_path, journal, 1, 0, lambda notice: None)
        errands = Errands(setup)
        ending = setup.until(errands.ending)

        def fetch() -> None:
            assert may_go_on.wait(10)
            ending.store.pin(cid)

        errands.fetch("fetch", fetch)
        threading.Timer(0.2, may_go_on.set).start()
        errands.finish()
        assert own.pins() == {cid}
        errands.close()


def test_close__file_of_many_slow_blocks_under_way__ends_with_the_block_of_the_moment(
    tmp_path: Path,
) -> None:
    """Silent gateways: each block would wait for its deadline at both of them."""
    cids = [cid_of_bytes(bytes([number])) for number in range(20)]
    with (
        Journal(tmp_path / "journal.sqlite") as journal,
        socket.create_server(("127.0.0.1", 0), backlog=64) as one,
        socket.create_server(("127.0.0.1", 0), backlog=64) as other,
    ):
        urls = [f"http://127.0.0.1:{silent.getsockname()[1]}" for silent in (one, other)]
        gateways = [(url, GatewayStore(url, block_seconds=1)) for url in urls]
        store = Mirrors([("own", LocalStore(tmp_path / "store")), *gateways])
        setup = Setup(NOBODY, store, tmp_path, journal, 1, 0, lambda notice: None)
        errands = Errands(setup)
        ending = setup.until(errands.ending)
        asked: list[str] = []

        def fetch() -> None:
            for cid in cids:
                asked.append(cid)
                ending.store.get_bytes(cid)

        errands.fetch("fetch", fetch)
        while not asked:
            time.sleep(0.01)
        begun = time.monotonic()
        errands.close()
        assert time.monotonic() - begun < 1.8
    assert len(asked) == 1
