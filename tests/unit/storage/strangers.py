"""Hosts and daemons that do whatever a script says, byte for byte, on real sockets."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import socketserver
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Script = Callable[[socket.socket, str], None]
"""Answers one request, which is given as its target; an OSError ends the connection."""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64


@contextmanager
def host(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """A host that answers as ``script`` says; its address, and the targets it was asked for."""
    asked: list[str] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                connection = self.request
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                    stack.enter_context(connection)
                while target := read_request(connection):
                    asked.append(target)
                    script(connection, target)

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            scheme = "http" if tls is None else "https"
            yield f"{scheme}://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def daemon(script: Script) -> Iterator[tuple[str, list[str]]]:
    """The same with the RPC of a daemon that tells its version and is asked for it first."""

    def answer(connection: socket.socket, target: str) -> None:
        if target.startswith("/api/v0/version"):
            connection.sendall(whole(b'{"Version":"0.30.0"}'))
        else:
            script(connection, target)

    with host(answer) as (address, asked):
        yield address, asked


def read_request(connection: socket.socket) -> str:
    """The target of the next request, once all of it is read; "" at the end."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(1 << 16)
        if not piece:
            return ""
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    while length and len(body) < int(length[1]):
        body += connection.recv(1 << 16)
    while not length and b"chunked" in head and not body.endswith(b"0\r\n\r\n"):
        body += connection.recv(1 << 16)
    return head.split(b" ", 2)[1].decode()


def whole(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A response with its length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def saying(response: bytes) -> Script:
    """Sends ``response`` and leaves the connection open."""
    return lambda connection, _: connection.sendall(response)


def ending(response: bytes) -> Script:
    """Sends ``response`` and ends the connection."""

    def script(connection: socket.socket, _: str) -> None:
        connection.sendall(response)
        raise ConnectionAbortedError

    return script


def flooding(first: bytes, again: bytes, most: int = 1 << 28) -> Script:
    """Sends ``again`` and again as fast as it is read, 256 MiB at most."""
    piece = again * max(1, (1 << 16) // len(again))

    def script(connection: socket.socket, _: str) -> None:
        connection.sendall(first)
        for _ in range(most // len(piece)):
            connection.sendall(piece)
        raise ConnectionAbortedError

    return script


def dripping(at_once: bytes, slowly: bytes = b"", seconds: float = 0.02) -> Script:
    """Sends ``at_once`` and then bytes of ``slowly``, over and over: no single wait is long."""

    def script(connection: socket.socket, _: str) -> None:
        connection.sendall(at_once)
        while True:
            for byte in slowly or b" ":
                time.sleep(seconds)
                connection.sendall(bytes([byte]))

    return script


def silent(connection: socket.socket, _: str) -> None:
    """Says nothing until the other end goes."""
    connection.recv(1)


@functools.cache
def bomb() -> bytes:
    """Half a MiB that becomes 512 MiB where it is decompressed."""
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()


def exploding(connection: socket.socket, _: str) -> None:
    """Sends the bomb as what a client that decompresses would open."""
    connection.sendall(whole(bomb(), "200 OK", "Content-Encoding: gzip"))


def chunks(*bodies: bytes) -> bytes:
    """``bodies`` as chunks of a body that goes on."""
    return b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def document(**members: object) -> bytes:
    """A whole response of JSON."""
    return whole(json.dumps(members).encode())


@contextmanager
def black_hole(address: str = "0.0.0.0") -> Iterator[int]:
    """A port that no connection gets through to, at any loopback address or at that: it is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((address, 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect((address.replace("0.0.0.0", "127.0.0.1"), port))
        yield port


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
