"""The local store as a trustless gateway: blocks and CARs over HTTP, to be read only.

What specs.ipfs.tech, "Trustless Gateway", asks of a server that hosts its own content: ``GET`` and
``HEAD`` of ``/ipfs/CID`` as one raw block (``?format=raw``) or as a CAR stream (``?format=car``:
version 1, depth first, ``dag-scope=block`` or ``all``). Nothing else has a name here: no paths, no
listings, no writing. A CID is checked before it becomes a file name.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Collection, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, Final, Self
from urllib.parse import parse_qs, urlsplit

from pouw import __version__
from pouw.errors import ConfigError, ContentError
from pouw.storage.block import cid_bytes, is_raw
from pouw.storage.local import LocalStore
from pouw.storage.unixfs import decode_node

CONNECTIONS: Final = 64
# A reader has a connection for each of its eight threads and one for the tree (`pouw.parallel`).
# When a test set opens, two at one address, of one machine or behind one router, read at once.
PER_ADDRESS: Final = 20
IDLE_SECONDS: Final = 30.0
HEAD_SECONDS: Final = 10.0
_TARGET: Final = re.compile(r"/ipfs/(b[a-z2-7]{58})")
_RAW: Final = "application/vnd.ipld.raw"
_CAR: Final = "application/vnd.ipld.car"
_Request = socket.socket | tuple[bytes, socket.socket]  # as socketserver has it
_FOR_EVER: Final = "public, max-age=31536000, immutable"


class Server(http.server.ThreadingHTTPServer):
    """Serves ``store`` at ``host`` and ``port`` (0: a free one) while the block is open.

    At most ``connections`` at a time, each in a thread of its own; of one address ``PER_ADDRESS``
    or, as a proxy needs it, a quarter of them where that is more. For a further one the kept
    connection that was idle for longest is closed; where none is idle, the new one is told to come
    again. ConfigError where the address cannot be used.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, store: LocalStore, host: str, port: int, connections: int = CONNECTIONS
    ) -> None:
        self.store = store
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._most, self._most_of_one = connections, max(PER_ADDRESS, connections // 4)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, bytes] = {}  # with the network it comes from
        self._idle: dict[socket.socket, None] = {}  # the longest first
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot serve at {host} port {port}: {error.strerror}",
                hint="choose another with --host and --port; port 0 is a free one",
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def server_bind(self) -> None:
        """Bind without asking the name service who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: _Request, client_address: Any) -> None:
        """Take a connection where there is room."""
        assert isinstance(request, socket.socket)  # a tuple is for datagrams
        if self._admit(request, network_of(client_address[0])):
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.sendall(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
                b"Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
        self.shutdown_request(request)

    def process_request_thread(self, request: _Request, client_address: Any) -> None:
        """Answer one connection until it ends."""
        assert isinstance(request, socket.socket)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._forget(request)

    @property
    def idle(self) -> Collection[socket.socket]:
        """The kept connections that wait for a request, the one that waits for longest first."""
        with self._lock:
            return tuple(self._idle)

    @contextlib.contextmanager
    def idling(self, connection: socket.socket) -> Iterator[None]:
        """While the block is open, ``connection`` may be closed in favour of another."""
        with self._lock:
            if connection in self._open:
                self._idle[connection] = None
        try:
            yield
        finally:
            with self._lock:
                self._idle.pop(connection, None)

    def _admit(self, connection: socket.socket, network: bytes) -> bool:
        with self._lock:
            same = {one for one, its in self._open.items() if its == network}
            if len(same) >= self._most_of_one and not self._make_room(same):
                return False
            if len(self._open) >= self._most and not self._make_room(self._open):
                return False
            self._open[connection] = network
            return True

    def _make_room(self, among: Collection[socket.socket]) -> bool:
        for connection in self._idle:
            if connection in among:
                self._forget(connection)
                # Its thread reads the end and closes it; a client that asks just now asks again.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                return True
        return False

    def _forget(self, connection: socket.socket) -> None:
        self._open.pop(connection, None)
        self._idle.pop(connection, None)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients come and go; what is wrong with the store is in the answers."""


class _Incoming(io.RawIOBase):
    """What a client sends, until a deadline (monotonic seconds) for all of it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.deadline = time.monotonic() + HEAD_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(IDLE_SECONDS)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = f"pouw/{__version__}"
    sys_version = ""
    timeout = IDLE_SECONDS
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Read with a deadline for the head: one for every byte would let a client take hours."""
        super().setup()
        self.rfile.close()
        self._incoming = _Incoming(self.connection)
        self.rfile = self._reader = io.BufferedReader(self._incoming)
        self._kept = False

    def handle_one_request(self) -> None:
        """Answer one request; on a kept connection it may be long in coming."""
        if self._kept:
            self._incoming.deadline = time.monotonic() + IDLE_SECONDS
            with self.server.idling(self.connection), contextlib.suppress(TimeoutError):
                self._reader.peek(1)
            self._incoming.deadline = min(self._incoming.deadline, time.monotonic() + HEAD_SECONDS)
        self._kept = True
        super().handle_one_request()

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Not logged: who reads what is nobody's business."""

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        found = _TARGET.fullmatch(parts.path.rstrip("/"))
        if found is None:
            self._refuse(HTTPStatus.NOT_FOUND, "ask for /ipfs/CID?format=raw or format=car")
            return
        asked = parse_qs(parts.query)
        accept = self.headers.get("Accept", "")
        form = asked.get("format", ["raw" if _RAW in accept else "car" if _CAR in accept else ""])
        try:
            cid_bytes(found[1])
            if form == ["raw"]:
                self._block(found[1])
            elif form == ["car"]:
                self._car(found[1], asked.get("dag-scope", ["all"])[0])
            else:
                self._refuse(HTTPStatus.NOT_ACCEPTABLE, "ask with format=raw or format=car")
        except ContentError:
            self._refuse(HTTPStatus.BAD_REQUEST, "not the CID of a file or document")

    def _block(self, cid: str) -> None:
        with self._opened(cid) as file:
            if file is None:
                return
            size = file.seek(0, 2)
            file.seek(0)
            self._begin(cid, _RAW, f'"{cid}.raw"')
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if self.command == "GET":
                self.wfile.flush()
                self.connection.sendfile(file, 0, size)

    def _car(self, cid: str, scope: str) -> None:
        if scope not in ("block", "all", "entity"):
            self._refuse(HTTPStatus.BAD_REQUEST, "dag-scope is block, entity or all")
            return
        with self._opened(cid) as file:
            if file is None:
                return
        self._begin(cid, f"{_CAR}; version=1; order=dfs; dups=y", f'W/"{cid}.car.{scope}"')
        # Its length shows only on the way; the connection's end is the end of the stream.
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(car_header(cid))
            for block, data in self._walk(cid, deep=scope != "block"):
                self.wfile.write(car_section(block, data))

    def _walk(self, root: str, *, deep: bool) -> Iterator[tuple[str, bytes]]:
        below: list[tuple[str, int | None]] = [(root, None)]
        while below:
            cid, level = below.pop()
            data = self.server.store.get_block(cid)
            yield cid, data
            if deep and not is_raw(cid):
                links = decode_node(cid, data, level)
                below += [(link.cid, link.level) for link in reversed(links)]

    @contextlib.contextmanager
    def _opened(self, cid: str) -> Iterator[BinaryIO | None]:
        """The block's file; None, and the answer given, where it is not here."""
        path: Path = self.server.store.path_of(cid)
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:
            self._refuse(HTTPStatus.NOT_FOUND, "not in this store")
            yield None
            return
        with file:
            yield file

    def _begin(self, cid: str, content_type: str, tag: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("ETag", tag)
        self.send_header("Cache-Control", _FOR_EVER)
        self.send_header("X-Ipfs-Path", f"/ipfs/{cid}")
        self.send_header("X-Content-Type-Options", "nosniff")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        body = f"{reason}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def network_of(address: str) -> bytes:
    """What connections of one client are told by: an IPv4 address, the upper half of an IPv6 one.

    One customer has the lower half for himself (RFC 6177).
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        return parsed.ipv4_mapped.packed if parsed.ipv4_mapped else parsed.packed[:8]
    return parsed.packed


def car_header(root: str) -> bytes:
    """The header of a CAR (version 1) with one root: DAG-CBOR of its roots and its version."""
    cbor = b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00" + cid_bytes(root) + b"\x67version\x01"
    return _length(len(cbor)) + cbor


def car_section(cid: str, data: bytes) -> bytes:
    """One block in a CAR: its length with the CID, the CID, its bytes."""
    binary = cid_bytes(cid)
    return _length(len(binary) + len(data)) + binary + data


def _length(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
