"""Reading from gateways that serve, lie, break off, are slow or gone; the server itself."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from pouw.errors import (
    ConfigError,
    ContentError,
    ContentMismatch,
    ContentNotFound,
    ContentTooLarge,
)
from pouw.storage.block import LEAF_BYTES, cid_bytes, cid_of_bytes
from pouw.storage.gateway import GatewayStore
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors
from pouw.storage.serve import Server
from pouw.storage.unixfs import leaves

SIZE = 3 * LEAF_BYTES + 5


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(Random(7).randbytes(SIZE))
    return path


@pytest.fixture
def server(local: LocalStore) -> Iterator[Server]:
    with Server(local, "127.0.0.1", 0) as server:
        yield server


@pytest.fixture
def gateway(server: Server) -> Iterator[GatewayStore]:
    store = GatewayStore(server.url)
    yield store
    store.close()


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def crooked(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A gateway that answers as it is told; its address, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def sending(body: bytes, declared: int | None = None) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) if declared is None else declared))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = declared is not None

    return answer


def refusing(status: int, *headers: tuple[str, str]) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def leaf_cids(store: LocalStore, root: str) -> list[str]:
    return [link.cid for link in leaves(root, SIZE, store.get_block)]


@pytest.mark.parametrize("size", [0, 5, LEAF_BYTES, SIZE])
def test_get_file__from_a_served_store__comes_back(
    local: LocalStore, gateway: GatewayStore, tmp_path: Path, size: int
) -> None:
    content = Random(size).randbytes(size)
    (tmp_path / "in").write_bytes(content)
    stored = local.put_file(tmp_path / "in")

    gateway.get_file(stored.cid, tmp_path / "out", stored.bytes)

    assert (tmp_path / "out").read_bytes() == content
    assert gateway.has(stored.cid)
    assert gateway.get_bytes(local.put_bytes(b"{}")) == b"{}"


def test_get_block__bytes_kept_by_the_caller__do_not_change_with_the_next(
    local: LocalStore, gateway: GatewayStore
) -> None:
    first, second = local.put_bytes(b"first"), local.put_bytes(b"other")
    kept = gateway.get_block(first)
    gateway.get_block(second)
    assert kept == b"first"


def test_get_block__not_there__says_who_does_not_have_it(gateway: GatewayStore) -> None:
    with pytest.raises(ContentNotFound, match=gateway.name):
        gateway.get_block(cid_of_bytes(b"elsewhere"))
    assert not gateway.has(cid_of_bytes(b"elsewhere"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (sending(b"something else"), ContentMismatch),
        (sending(b"x" * (LEAF_BYTES + 1)), ContentTooLarge),
        (sending(b"half", declared=8), ContentError),
        (refusing(500), ContentError),
        (refusing(429), ContentError),
        (refusing(301, ("Location", "https://elsewhere.example")), ContentError),
    ],
)
def test_get_block__gateway_at_fault__raises_its_kind(
    answer: Answer, error: type[ContentError]
) -> None:
    with crooked(answer) as (url, _):
        store = GatewayStore(url)
        with pytest.raises(error, match=url) as caught:
            store.get_block(cid_of_bytes(b"what was asked for"))
        store.close()
    assert type(caught.value) is error


def test_get_block__endless_body_without_a_length__is_cut_at_one_block() -> None:
    sent = 0

    def flood(handler: http.server.BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        try:
            while sent < 64 * LEAF_BYTES:
                sent += handler.wfile.write(b"x" * LEAF_BYTES)
        except OSError:
            return

    with crooked(flood) as (url, _), pytest.raises(ContentTooLarge):
        GatewayStore(url).get_block(cid_of_bytes(b"small"))
    assert sent < 64 * LEAF_BYTES


def test_get_block__silent_gateway__is_left_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = GatewayStore(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.2)
        with pytest.raises(ContentError, match="does not answer") as caught:
            store.get_block(cid_of_bytes(b"x"))
    assert caught.value.hint is not None


BLOCK = b"a block that comes slowly"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BLOCK)
DRIPS = {
    "body": (HEAD, BLOCK),
    "chunked body": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 99),
    "head": (b"", b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 200),
    "endless promises": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99),
    "refusal": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n", b"x" * 99),
}


def dripping(at_once: bytes, slowly: bytes) -> Answer:
    """A byte every 20 ms: no single wait is long."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.write(at_once)
            for byte in slowly:
                time.sleep(0.02)
                handler.wfile.write(bytes([byte]))

    return answer


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS.keys())
def test_get_block__byte_by_byte__is_left_after_the_deadline(drip: tuple[bytes, bytes]) -> None:
    with crooked(dripping(*drip)) as (url, _):
        store = GatewayStore(url, timeout_seconds=5, block_seconds=0.3)
        begun = time.monotonic()
        with pytest.raises(ContentError, match=r"too slow.*0\.3 s") as caught:
            store.get_block(cid_of_bytes(BLOCK))
        assert 0.25 < time.monotonic() - begun < 1.5
        store.close()
    assert type(caught.value) is ContentError
    assert caught.value.hint is not None


def test_get_block__slow_within_the_deadline__comes_and_the_connection_waits_as_before() -> None:
    with crooked(dripping(*DRIPS["body"])) as (url, _):
        store = GatewayStore(url, timeout_seconds=5, block_seconds=4)
        assert store.get_block(cid_of_bytes(BLOCK)) == BLOCK
        store.close()


def test_get_block__deadline_was_near__the_kept_connection_has_its_patience_back() -> None:
    """What a slow block left of the time is not all that the next one has."""
    clients = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        clients.append(handler.client_address)
        handler.wfile.write(HEAD)
        time.sleep(0.9)
        handler.wfile.write(BLOCK)

    with crooked(answer) as (url, _):
        store = GatewayStore(url, timeout_seconds=5, block_seconds=1.5)
        for _ in range(3):
            assert store.get_block(cid_of_bytes(BLOCK)) == BLOCK
        store.close()
    assert len(set(clients)) == 1


def test_mirrors__first_sends_byte_by_byte__second_serves_and_the_first_is_asked_last(
    local: LocalStore, server: Server, source: Path, tmp_path: Path
) -> None:
    stored = local.put_file(source)
    with crooked(dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b"x" * 999)) as (
        drip,
        asked,
    ):
        slow = GatewayStore(drip, block_seconds=0.3)
        places = [("own", LocalStore(tmp_path / "own")), (drip, slow)]
        store = Mirrors([*places, (server.url, GatewayStore(server.url))])
        begun = time.monotonic()
        store.get_file(stored.cid, tmp_path / "out", stored.bytes)
        assert time.monotonic() - begun < 3
        store.close()
    assert (tmp_path / "out").read_bytes() == source.read_bytes()
    assert len(asked) == 1


def test_mirrors__first_sends_every_block_but_slowly__is_asked_last_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rival that mirrors what somebody else revealed must not slow it down."""
    monkeypatch.setattr("pouw.storage.mirrors._SLOW_SECONDS", 0.1)
    rival, miner = Late(tmp_path / "rival"), LocalStore(tmp_path / "miner")
    source = tmp_path / "source"
    source.write_bytes(bytes(4 << 20))
    stored = miner.put_file(source)
    rival.put_file(source)
    store = Mirrors([("own", LocalStore(tmp_path / "own")), ("rival", rival), ("miner", miner)])
    store.get_file(stored.cid, tmp_path / "out", stored.bytes)
    assert rival.asked == 1
    assert (tmp_path / "out").read_bytes() == source.read_bytes()


class Late(LocalStore):
    """A place that sends the right block after a while."""

    asked = 0

    def get_block(self, cid: str) -> bytes:
        self.asked += 1
        time.sleep(0.2)
        return super().get_block(cid)


def test_mirrors__ended_while_a_gateway_drips__asks_nobody_else(tmp_path: Path) -> None:
    ending = threading.Event()
    with crooked(dripping(*DRIPS["head"])) as (drip, asked):
        gateways = [
            (f"{drip}/{name}", GatewayStore(f"{drip}/{name}", block_seconds=1)) for name in "ab"
        ]
        whole = Mirrors([("own", LocalStore(tmp_path / "own")), *gateways])
        store = whole.until(ending)
        threading.Timer(0.2, ending.set).start()
        begun = time.monotonic()
        with pytest.raises(ContentError, match="has ended"):
            store.get_file(cid_of_bytes(BLOCK), tmp_path / "out", len(BLOCK))
        assert time.monotonic() - begun < 1.8
        assert len(asked) == 1
        cid = whole.put_bytes(b"x")
        assert store.get_bytes(cid) == b"x", "what is here costs no waiting"
        other = whole.until(threading.Event())
        with pytest.raises(ContentNotFound):
            other.get_bytes(cid_of_bytes(BLOCK))
        assert len(asked) == 3, "only the role that ends is stopped"
        store.close()


def test_gateway__server_closed_the_kept_connection__asks_again(local: LocalStore) -> None:
    cid = local.put_bytes(b"kept")
    with Server(local, "127.0.0.1", 0) as server:
        port = server.server_address[1]
        store = GatewayStore(server.url)
        assert store.get_block(cid) == b"kept"
    # The old connection is dead; a new server stands at the same address.
    with Server(local, "127.0.0.1", port):
        assert store.get_block(cid) == b"kept"
    store.close()


@pytest.mark.parametrize("url", ["ftp://host", "http://", "https://host/?format=raw", "host:80"])
def test_gateway__not_an_address__is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        GatewayStore(url)


def test_gateway__writing__is_refused(gateway: GatewayStore, local: LocalStore) -> None:
    cid = local.put_bytes(b"x")
    for write in (gateway.pin, gateway.unpin, lambda cid: gateway.put_block(cid, b"x")):
        with pytest.raises(ContentError, match="only be read"):
            write(cid)


def test_mirrors__one_lies_one_is_gone__third_serves_and_the_liar_is_not_believed_twice(
    local: LocalStore, server: Server, source: Path, tmp_path: Path
) -> None:
    stored = local.put_file(source)
    with crooked(sending(b"a lie")) as (liar, asked), socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}"
        own = LocalStore(tmp_path / "own")
        places = [(url, GatewayStore(url)) for url in (liar, gone, server.url)]
        store = Mirrors([("own", own), *places])

        store.get_file(stored.cid, tmp_path / "out", stored.bytes)
        store.close()

    assert (tmp_path / "out").read_bytes() == source.read_bytes()
    # Once, for the root: from then on it is asked last.
    assert len(asked) == 1


def test_mirrors__nobody_has_it__says_what_each_answered(
    server: Server, gateway: GatewayStore, tmp_path: Path
) -> None:
    with crooked(sending(b"a lie")) as (liar, _):
        lying = GatewayStore(liar)
        store = Mirrors([("own", LocalStore(tmp_path / "own")), (liar, lying), ("web", gateway)])
        with pytest.raises(ContentNotFound) as caught:
            store.get_block(cid_of_bytes(b"nowhere"))
        lying.close()
    text = str(caught.value)
    assert "own: cannot read block" in text
    assert f"{liar} sent something else" in text
    assert "404" in text


def test_mirrors__place_that_made_us_wait__is_asked_last_for_a_while(tmp_path: Path) -> None:
    now, calls = [0.0], []

    class Slow(LocalStore):
        def get_block(self, cid: str) -> bytes:
            calls.append(now[0])
            now[0] += 10
            raise ContentNotFound("not found in ten seconds", cid=cid)

    whole = LocalStore(tmp_path / "whole")
    cid = whole.put_bytes(b"x")
    store = Mirrors([("slow", Slow(tmp_path / "slow")), ("whole", whole)], clock=lambda: now[0])
    for _ in range(3):
        assert store.get_block(cid) == b"x"
    assert calls == [0.0]
    now[0] += 1000
    assert store.get_block(cid) == b"x"
    assert len(calls) == 2


def test_mirrors__pin__brings_every_block_to_the_first_place(
    local: LocalStore, gateway: GatewayStore, source: Path, tmp_path: Path
) -> None:
    stored, own = local.put_file(source), LocalStore(tmp_path / "own")
    store = Mirrors([("own", own), ("web", gateway)])

    store.pin(stored.cid)

    own.verify(stored.cid)
    assert own.pins() == store.pins() == {stored.cid}
    store.unpin(stored.cid)
    assert not own.pins()


def test_get_file__interrupted__next_call_fetches_only_what_lacks(
    local: LocalStore, server: Server, gateway: GatewayStore, source: Path, tmp_path: Path
) -> None:
    stored = local.put_file(source)
    missing = leaf_cids(local, stored.cid)[2]
    path = local.path_of(missing)
    hidden = path.rename(path.with_suffix(".hidden"))
    with pytest.raises(ContentNotFound):
        gateway.get_file(stored.cid, tmp_path / "out", stored.bytes)
    assert not (tmp_path / "out").exists()
    hidden.rename(path)
    for cid in leaf_cids(local, stored.cid):
        if cid not in (missing, leaf_cids(local, stored.cid)[3]):
            local.path_of(cid).unlink()

    gateway.get_file(stored.cid, tmp_path / "out", stored.bytes)

    assert (tmp_path / "out").read_bytes() == source.read_bytes()


def ask(server: Server, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 404),
        ("/ipfs/", 404),
        ("/ipfs/../../etc/passwd?format=raw", 404),
        ("/ipfs/%2e%2e/%2e%2e/etc/passwd?format=raw", 404),
        ("/ipfs/" + "b" + "a" * 58 + "?format=raw", 400),
        ("/ipfs/{cid}", 406),
        ("/ipfs/{cid}/path?format=raw", 404),
        ("/ipfs/{cid}?format=tar", 406),
        ("/ipfs/{cid}?format=car&dag-scope=universe", 400),
        ("/ipfs/{cid}?format=raw", 200),
        ("/ipfs/{cid}/?format=raw", 200),
    ],
)
def test_server__targets__only_cids_have_names(
    local: LocalStore, server: Server, target: str, status: int
) -> None:
    cid = local.put_bytes(b"public")
    got, headers, body = ask(server, target.format(cid=cid))
    assert got == status
    assert (body == b"public") == (status == 200)
    if status == 200:
        assert headers["Content-Type"] == "application/vnd.ipld.raw"
        assert headers["ETag"] == f'"{cid}.raw"'


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_server__writing_methods__are_not_known(
    local: LocalStore, server: Server, method: str
) -> None:
    cid = local.put_bytes(b"public")
    assert ask(server, f"/ipfs/{cid}?format=raw", method)[0] == 501
    assert local.has(cid)


def test_server__head__has_no_body(local: LocalStore, server: Server) -> None:
    cid = local.put_bytes(b"public")
    status, headers, body = ask(server, f"/ipfs/{cid}?format=raw", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "6", b"")


def test_server__more_connections_than_allowed__are_told_to_come_again(local: LocalStore) -> None:
    cid = local.put_bytes(b"public")
    with Server(local, "127.0.0.1", 0, connections=1) as server:
        address = ("127.0.0.1", server.server_address[1])
        with socket.create_connection(address) as first:
            first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            assert ask(server, f"/ipfs/{cid}?format=raw")[0] == 503
        deadline = time.monotonic() + 10
        while (again := ask(server, f"/ipfs/{cid}?format=raw"))[0] == 503:
            assert time.monotonic() < deadline, "the place of the first was never free again"
            time.sleep(0.02)
        assert again[2] == b"public"


def test_server__car__holds_every_block_depth_first(
    local: LocalStore, server: Server, source: Path
) -> None:
    stored = local.put_file(source)
    status, headers, body = ask(server, f"/ipfs/{stored.cid}?format=car")
    assert status == 200
    assert headers["Content-Type"] == "application/vnd.ipld.car; version=1; order=dfs; dups=y"
    sections, position = [], 0
    while position < len(body):
        length, shift = 0, 0
        while True:
            byte, position = body[position], position + 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        sections.append(body[position : position + length])
        position += length
    assert cid_bytes(stored.cid) in sections[0]
    cids = [stored.cid, *leaf_cids(local, stored.cid)]
    assert sections[1:] == [cid_bytes(cid) + local.get_block(cid) for cid in cids]
    only = ask(server, f"/ipfs/{stored.cid}?format=car&dag-scope=block")[2]
    assert only.endswith(cid_bytes(stored.cid) + local.get_block(stored.cid))


def test_server__address_taken__is_a_clear_error(local: LocalStore, server: Server) -> None:
    with (
        pytest.raises(ConfigError, match="cannot serve"),
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        Server(local, "127.0.0.1", taken.getsockname()[1])
