"""HTTP connections on which nothing lasts longer than it may: names, addresses, TLS, both ways.

``http.client`` bounds each of these waits, and each address of a name, but not their sum; it reads
headers, chunk sizes and trailers for as long as they are sent.
"""

from __future__ import annotations

import errno
import http.client
import io
import math
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, cast

from pouw.storage.bound import SLICE_SECONDS, Bound

Connect = Callable[[Bound], "Connection"]


class Flood(http.client.HTTPException):
    """An answer of more bytes than any has that was asked for."""


class Connection(http.client.HTTPConnection):
    """One that is there already, and whose every exchange has a ``bound``."""

    auto_open = 0
    bound: Bound
    _reader: io.BufferedReader | None = None

    def __init__(self, host: str, port: int, sock: socket.socket) -> None:
        super().__init__(host, port)
        self.sock = sock

    def send(self, data: Any) -> None:
        """Send bytes within the bound; ``sendall`` over TLS gives each record a time of its own."""
        rest, sock = memoryview(data), self.sock

        def some(seconds: float) -> int:
            sock.settimeout(seconds)
            return sock.send(rest)

        while rest:
            rest = rest[self.bound.patiently(some) :]

    def drop(self) -> None:
        """Close it for good, also where a response of which the rest is not wanted owns it."""
        self.close()
        if self._reader is not None:
            self._reader.close()

    def _response(
        self, sock: socket.socket, *arguments: Any, **named: Any
    ) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *arguments, **named)
        self._reader = io.BufferedReader(_Received(response.fp.detach(), sock, self.bound))
        response.fp = self._reader
        return response

    # Of the class: a method kept by its own object would leave it to the garbage collector.
    response_class = cast(Any, _response)


class Address:
    """A host and port to connect to; ``secure`` by TLS, whose certificate has to be the host's."""

    def __init__(
        self, host: str, port: int, *, secure: bool = False, family: int = socket.AF_UNSPEC
    ) -> None:
        self._host = host
        self._port = port
        self._family = family
        self._tls: ssl.SSLContext | None = None
        if secure:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        self._lock = threading.Lock()
        self._asked: Future[list[Any]] | None = None

    def connect(self, bound: Bound) -> Connection:
        """A connection, all of which is one wait: what is dead of a name costs its share of it."""
        until = time.monotonic() + bound.silence_seconds
        sock = self._reach(bound, until)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self._host, self._port, self._secured(sock, bound, until))
        except BaseException:
            sock.close()
            raise
        if self._tls is not None:
            connection.default_port = http.client.HTTPS_PORT
        return connection

    def _reach(self, bound: Bound, until: float) -> socket.socket:
        addresses = self._addresses(bound, until)
        for left in range(len(addresses), 0, -1):
            family, kind, protocol, _, address = addresses[-left]
            sock = socket.socket(family, kind, protocol)
            try:
                _connect(sock, address, bound, bound.share(until, left))
            except OSError:
                sock.close()
                if left == 1 or bound.over:
                    raise
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise OSError(f"{self._host} has no address")

    def _addresses(self, bound: Bound, until: float) -> list[Any]:
        asked = (self._host, self._port, self._family, socket.SOCK_STREAM)
        try:
            return socket.getaddrinfo(*asked, flags=socket.AI_NUMERICHOST)
        except UnicodeError as error:
            raise OSError(f"{self._host} can be no host's name") from error
        except socket.gaierror:
            pass
        # The name service knows no timeout. Those who wait share one thread, which ends when it
        # does, so a silent one holds no more of them than there are hosts.
        with self._lock:
            if self._asked is None:
                self._asked = Future()
                threading.Thread(
                    target=self._ask, args=(self._asked, asked), name="names", daemon=True
                ).start()
            answer = self._asked
        return bound.patiently(answer.result, until)

    def _ask(self, answer: Future[list[Any]], asked: tuple[str, int, int, int]) -> None:
        try:
            answer.set_result(socket.getaddrinfo(*asked))
        except OSError as error:
            answer.set_exception(error)
        finally:
            with self._lock:
                self._asked = None

    def _secured(self, sock: socket.socket, bound: Bound, until: float) -> socket.socket:
        if self._tls is None:
            return sock
        secured = self._tls.wrap_socket(
            sock, server_hostname=self._host, do_handshake_on_connect=False
        )

        def shake(seconds: float) -> None:
            secured.settimeout(seconds)
            secured.do_handshake()

        try:
            bound.patiently(shake, until)
        except BaseException:
            secured.close()
            raise
        return secured


class UnixAddress:
    """The socket at ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def connect(self, bound: Bound) -> Connection:
        """A connection to it."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            _connect(sock, self._path, bound, math.inf)
        except BaseException:
            sock.close()
            raise
        return Connection("localhost", http.client.HTTP_PORT, sock)


class _Received(io.RawIOBase):
    """What a socket receives within ``bound``; TimeoutError or ``Flood`` from then on."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, bound: Bound) -> None:
        self._raw = raw
        self._sock = sock
        self._bound = bound
        self._left = bound.most_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        until = time.monotonic() + self._bound.silence_seconds
        while True:
            seconds = self._bound.slice(until)
            # Setting it costs a system call, and it is the same but for the last one.
            if self._sock.gettimeout() != seconds:
                self._sock.settimeout(seconds)
            try:
                size = self._sock.recv_into(buffer)
                break
            except TimeoutError as error:
                if error.errno is not None:
                    raise
        self._left -= size
        if self._left < 0:
            raise Flood(f"it sends more than {self._bound.most_bytes} bytes")
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


def _connect(sock: socket.socket, address: Any, bound: Bound, until: float) -> None:
    sock.setblocking(False)
    failed = sock.connect_ex(address)
    if failed == errno.EINPROGRESS:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)

        def wait(seconds: float) -> None:
            if not poll.poll(math.ceil(1000 * seconds)):
                raise TimeoutError("timed out")

        bound.patiently(wait, until)
        failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, os.strerror(failed))
    sock.settimeout(SLICE_SECONDS)
