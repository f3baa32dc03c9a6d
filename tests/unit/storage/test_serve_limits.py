"""What one client can take from the others: connections, and time for a request's head."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from pouw.parallel import THREADS
from pouw.storage import serve
from pouw.storage.block import LEAF_BYTES
from pouw.storage.gateway import GatewayStore
from pouw.storage.local import LocalStore
from pouw.storage.serve import PER_ADDRESS, Server, network_of

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
READERS = 2


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def cid(local: LocalStore) -> str:
    return local.put_bytes(b"public")


def connect(server: Server, source: str = HERE) -> socket.socket:
    address = ("127.0.0.1", server.server_address[1])
    return socket.create_connection(address, timeout=10, source_address=(source, 0))


@contextlib.contextmanager
def begun(server: Server, many: int, source: str = HERE) -> Iterator[None]:
    """That many connections whose request has begun and does not end."""
    with contextlib.ExitStack() as stack:
        for _ in range(many):
            stack.enter_context(connect(server, source)).sendall(b"G")
        yield


def ask(server: Server, cid: str, source: str = HERE) -> int:
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.server_address[1], timeout=10, source_address=(source, 0)
    )
    with contextlib.closing(connection):
        connection.request("GET", f"/ipfs/{cid}?format=raw")
        return connection.getresponse().status


def keep(server: Server, source: str = HERE) -> socket.socket:
    """A connection that was answered once and is kept."""
    kept = connect(server, source)
    ask_again(kept)
    return kept


def ask_again(kept: socket.socket) -> None:
    kept.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"404" in kept.recv(4096)


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_server__one_address_takes_all_it_can__others_are_served(
    local: LocalStore, cid: str
) -> None:
    with Server(local, "127.0.0.1", 0) as server, begun(server, serve.CONNECTIONS):
        assert ask(server, cid) == 503
        assert ask(server, cid, ELSEWHERE) == 200


def test_server__connections_of_an_address_end__it_is_served_again(
    local: LocalStore, cid: str
) -> None:
    with Server(local, "127.0.0.1", 0) as server:
        with begun(server, PER_ADDRESS):
            assert ask(server, cid) == 503
        assert eventually(lambda: ask(server, cid) == 200)


@pytest.mark.parametrize("answered", [False, True])
def test_head__a_byte_now_and_then__is_cut_off_at_the_deadline(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, *, answered: bool
) -> None:
    monkeypatch.setattr(serve, "HEAD_SECONDS", 0.5)
    with Server(local, "127.0.0.1", 0) as server:
        with keep(server) if answered else connect(server) as slow:
            begin, slow_head = time.monotonic(), b"GET / HTTP/1.1\r\nX: " + b"x" * 100
            with contextlib.suppress(ConnectionError):
                slow.settimeout(0.1)
                for byte in slow_head:
                    slow.sendall(bytes([byte]))
                    with contextlib.suppress(TimeoutError):
                        if not slow.recv(4096):
                            break
        assert time.monotonic() - begin < 5


def test_head__connection_is_kept__its_next_request_may_be_long_in_coming(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "HEAD_SECONDS", 0.2)
    with Server(local, "127.0.0.1", 0) as server, keep(server) as kept:
        time.sleep(0.5)
        ask_again(kept)


def test_server__full_of_kept_connections__the_longest_idle_makes_room(
    local: LocalStore, cid: str
) -> None:
    with (
        Server(local, "127.0.0.1", 0, connections=2) as server,
        keep(server, ELSEWHERE) as first,
        keep(server, ELSEWHERE) as second,
    ):
        assert eventually(lambda: len(server.idle) == 2)
        ask_again(first)
        assert eventually(lambda: len(server.idle) == 2)
        assert ask(server, cid) == 200
        assert second.recv(4096) == b"", "idle for longer than the first"
        ask_again(first)


def test_server__address_keeps_all_it_may__one_of_its_own_makes_room(
    local: LocalStore, cid: str
) -> None:
    with Server(local, "127.0.0.1", 0) as server, contextlib.ExitStack() as stack:
        other, longest = (stack.enter_context(keep(server, each)) for each in (ELSEWHERE, HERE))
        assert eventually(lambda: len(server.idle) == 2)
        for _ in range(PER_ADDRESS - 1):
            stack.enter_context(keep(server))
        assert eventually(lambda: len(server.idle) == PER_ADDRESS + 1)
        assert ask(server, cid) == 200
        assert longest.recv(4096) == b""
        ask_again(other)


def test_server__readers_of_one_address__all_get_their_file_at_once(
    local: LocalStore, tmp_path: Path
) -> None:
    assert READERS * (THREADS + 1) <= PER_ADDRESS
    (tmp_path / "file").write_bytes(Random(3).randbytes(24 * LEAF_BYTES))
    stored = local.put_file(tmp_path / "file")
    with Server(local, "127.0.0.1", 0) as server:
        at_once = threading.Barrier(READERS)

        def read(number: int) -> bytes:
            store, out = GatewayStore(server.url), tmp_path / f"out-{number}"
            at_once.wait()
            store.get_file(stored.cid, out, stored.bytes)
            store.close()
            return out.read_bytes()

        with ThreadPoolExecutor(READERS) as pool:
            for content in pool.map(read, range(READERS)):
                assert content == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_network_of__addresses_that_one_client_has__count_as_one(
    one: str, other: str, *, same: bool
) -> None:
    assert (network_of(one) == network_of(other)) == same
