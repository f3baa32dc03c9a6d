"""Our blocks in a real daemon, and what is said when it refuses."""

from __future__ import annotations

import contextlib
import http.server
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from daemon import Daemon

from pouw.cli.main import main
from pouw.errors import (
    ConfigError,
    ContentError,
    ContentMismatch,
    ContentNotFound,
    ContentTooLarge,
)
from pouw.storage.block import LEAF_BYTES, cid_of_bytes
from pouw.storage.gateway import GatewayStore
from pouw.storage.ipfs import IpfsStore
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors
from pouw.storage.serve import Server

SIZE = 2 * LEAF_BYTES + 5


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(Random(11).randbytes(SIZE))
    return path


def test_put_file__into_the_daemon__has_our_cid_and_comes_back(
    daemon: Daemon, store: IpfsStore, source: Path, tmp_path: Path
) -> None:
    stored = store.put_file(source)

    assert stored == LocalStore(tmp_path / "local").put_file(source)
    assert store.has(stored.cid)
    store.get_file(stored.cid, tmp_path / "back", stored.bytes)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    # The daemon itself reads our blocks as a file.
    cat = httpx.post(f"{daemon.rpc}/api/v0/cat", params={"arg": stored.cid}, timeout=30)
    assert cat.content == source.read_bytes()


def test_pin__whole_file__is_listed_until_unpinned(store: IpfsStore, source: Path) -> None:
    cid = store.put_file(source).cid
    document = store.put_bytes(b'{"pinned":true}')
    before = store.pins()

    store.pin(cid)
    store.pin(document)
    assert store.pins() - before == {cid, document}

    for each in (cid, document, cid):  # unpinning twice is no error
        store.unpin(each)
    assert store.pins() == before


def test_get_block__not_in_the_daemon__is_not_found_within_the_search(store: IpfsStore) -> None:
    cid = cid_of_bytes(b"nobody has this")
    with pytest.raises(ContentNotFound, match=r"ipfs:http.* cannot find block"):
        store.get_block(cid)
    assert not store.has(cid)
    with pytest.raises(ContentNotFound):
        store.pin(cid)


def test_put_block__bytes_of_another_cid__never_reach_the_daemon(
    daemon: Daemon, store: IpfsStore
) -> None:
    before = daemon.blocks()
    with pytest.raises(ContentMismatch):
        store.put_block(cid_of_bytes(b"one"), b"two")
    assert daemon.blocks() == before


def test_mirrors__daemon_then_gateway__brings_what_the_daemon_lacks(
    store: IpfsStore, source: Path, tmp_path: Path
) -> None:
    whole = LocalStore(tmp_path / "whole")
    source.write_bytes(Random(12).randbytes(SIZE))
    stored = whole.put_file(source)
    with Server(whole, "127.0.0.1", 0) as server:
        mirrors = Mirrors([("own", store), ("web", GatewayStore(server.url))])
        mirrors.pin(stored.cid)
        mirrors.close()
    assert stored.cid in store.pins()
    store.get_file(stored.cid, tmp_path / "back", stored.bytes)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_server__car__is_taken_by_the_daemon(
    daemon: Daemon, store: IpfsStore, source: Path, tmp_path: Path
) -> None:
    whole = LocalStore(tmp_path / "whole")
    source.write_bytes(Random(13).randbytes(SIZE))
    stored = whole.put_file(source)
    with Server(whole, "127.0.0.1", 0) as server:
        car = httpx.get(f"{server.url}/ipfs/{stored.cid}?format=car", timeout=30).content
    answer = httpx.post(
        f"{daemon.rpc}/api/v0/dag/import", files={"file": ("model.car", car)}, timeout=30
    )
    assert answer.status_code == 200
    assert stored.cid in answer.text
    store.get_file(stored.cid, tmp_path / "back", stored.bytes)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_commands__add_ls_verify_get__work_on_the_daemon(
    daemon: Daemon, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--store", f"ipfs:{daemon.rpc}", "--json"]

    def run(*words: str) -> dict[str, Any]:
        assert main(["store", *words, *place]) == 0
        return dict(json.loads(capsys.readouterr().out))

    cid = str(run("add", str(source))["cid"])
    assert {"cid": cid, "bytes": SIZE} in run("ls")["pins"]
    assert run("verify", cid) == {"checked": 1, "faults": []}
    assert run("get", cid, "--output", str(tmp_path / "back"))["bytes"] == SIZE
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    run("unpin", cid)


@contextmanager
def pretender(status: int, body: bytes) -> Iterator[str]:
    """An RPC that gives one answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (200, b'{"Version":"0.8.0"}', ConfigError, "update it: 0.13"),
        (200, b'{"Version":"next"}', ConfigError, "update it: 0.13"),
        (403, b"", ContentError, "API.Authorizations"),
        (404, b"404 page not found", ContentError, "not of the gateway"),
        (200, b"<html>", ContentError, "not of the gateway"),
        (200, b"{}", ContentError, "not of the gateway"),
    ],
)
def test_open__daemon_of_no_use__says_what_to_do(
    status: int, body: bytes, error: type[Exception], words: str
) -> None:
    with pretender(status, body) as url, pytest.raises(error) as caught:
        IpfsStore(url)
    assert words in str(getattr(caught.value, "hint", ""))


@contextmanager
def daemon_sending(
    body: bytes, status: int = 200, pause_seconds: float = 0.0, socket: Path | None = None
) -> Iterator[str]:
    """An RPC that tells its version, and answers everything else so; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            version = self.path.startswith("/api/v0/version")
            data = b'{"Version":"0.30.0"}' if version else body
            self.send_response(200 if version else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):
                if version or not pause_seconds:
                    self.wfile.write(data)
                    return
                for byte in data:
                    time.sleep(pause_seconds)
                    self.wfile.write(bytes([byte]))

        def address_string(self) -> str:
            return "somebody"

        def log_message(self, *_: object) -> None:
            pass

    class UnixServer(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    server: socketserver.BaseServer
    if socket is None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        address = f"http://127.0.0.1:{server.server_address[1]}"
    else:
        server, address = UnixServer(str(socket), Handler), f"/unix{socket}"
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield address
        finally:
            server.shutdown()
            thread.join()


def test_get_block__byte_by_byte__is_left_after_the_deadline() -> None:
    with daemon_sending(b"x" * 99, pause_seconds=0.02) as address:
        store = IpfsStore(address, search_seconds=0, block_seconds=0.3)
        begun = time.monotonic()
        with pytest.raises(ContentError, match="too slow"):
            store.get_block(cid_of_bytes(b"x" * 99))
        assert time.monotonic() - begun < 1.5
        store.close()


def test_get_block__through_a_unix_socket__comes(tmp_path: Path) -> None:
    with daemon_sending(b"from a socket", socket=tmp_path / "api.sock") as address:
        store = IpfsStore(address)
        assert store.get_block(cid_of_bytes(b"from a socket")) == b"from a socket"
        store.close()


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (500, b'{"Message":"block was not found","Code":0}', ContentNotFound, "was not found"),
        (403, b"403 - Forbidden", ContentError, "refused with status 403"),
        (200, b"something else", ContentMismatch, "sent something else"),
        (200, b"x" * (LEAF_BYTES + 1), ContentTooLarge, "more than 1048576 bytes"),
    ],
)
def test_get_block__daemon_refuses_or_lies__says_which(
    status: int, body: bytes, error: type[ContentError], words: str
) -> None:
    with daemon_sending(body, status) as address:
        store = IpfsStore(address)
        with pytest.raises(ContentError, match=words) as caught:
            store.get_block(cid_of_bytes(b"x"))
        store.close()
    assert type(caught.value) is error


def test_open__nothing_there__says_how_to_start_it() -> None:
    with pytest.raises(ContentError, match="does not answer") as caught:
        IpfsStore("http://127.0.0.1:1")
    assert "ipfs daemon" in str(caught.value.hint)


@pytest.mark.parametrize("address", ["", "127.0.0.1:5001", "/ip4/127.0.0.1", "http://", "/what/5"])
def test_open__not_an_address__is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="not the address"):
        IpfsStore(address)


def test_open__multiaddr_and_url__are_the_same_daemon(daemon: Daemon, store: IpfsStore) -> None:
    port = daemon.rpc.rsplit(":", 1)[1]
    other = IpfsStore(f"/ip4/127.0.0.1/tcp/{port}", search_seconds=1)
    cid = store.put_bytes(b"the same")
    assert other.get_bytes(cid) == b"the same"
    assert other.version == store.version
    other.close()


def test_open__password_in_the_address__is_not_shown(daemon: Daemon) -> None:
    port = daemon.rpc.rsplit(":", 1)[1]
    store = IpfsStore(f"http://me:secret@127.0.0.1:{port}")
    assert "secret" not in store.name
    store.close()
