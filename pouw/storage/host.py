"""Blocks over HTTP from one host, each of which is there by a deadline or given up.

``http.client`` is used because it reads into a buffer; each thread has one, and connections are
kept. A timeout alone would only bound each wait, so a host that sends a byte now and then could
hold a thread for ever: what is read of a response, its head included, has a deadline.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final, cast

from pouw.errors import ContentError, ContentMismatch, ContentTooLarge
from pouw.storage.block import LEAF_BYTES, verify_block

BLOCK_SECONDS: Final = 60.0
"""By when a block of 1 MiB is there: 17 KiB/s, eight of them at a time 1.1 Mbit/s."""
SMALL_BYTES: Final = 1 << 14
_STALE: Final = (
    http.client.RemoteDisconnected,
    BrokenPipeError,
    ConnectionResetError,
    ConnectionAbortedError,
)

Refusal = Callable[[http.client.HTTPResponse], ContentError]


class Host:
    """A host that errors call ``name``; ``connect`` makes a connection with that timeout.

    No wait lasts longer than ``timeout_seconds``, no exchange longer than ``block_seconds``.
    ``hint`` says what to look at where it does not answer.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[float], http.client.HTTPConnection],
        headers: dict[str, str],
        timeout_seconds: float,
        block_seconds: float,
        hint: str,
    ) -> None:
        self._name = name
        self._connect = connect
        self._headers = headers
        self._timeout_seconds = timeout_seconds
        self._block_seconds = block_seconds
        self._hint = hint
        self._idle: list[http.client.HTTPConnection] = []
        self._local = threading.local()

    def block(self, cid: str, method: str, target: str, refusal: Refusal) -> memoryview:
        """The verified block; its bytes hold until the same thread asks again.

        What ``refusal`` makes of any status but 200 is raised.
        """
        buffer, size, refused = self._buffer(), 0, None
        with self.exchange(method, target, cid) as response:
            if response.status == HTTPStatus.OK:
                size = self._read(cid, response, buffer)
            else:
                refused = refusal(response)
        if refused is not None:
            raise refused
        try:
            return verify_block(cid, buffer[:size])
        except ContentMismatch as error:
            raise ContentMismatch(
                f"{self._name} sent something else for {cid}: {error}", cid=cid, hint=error.hint
            ) from error

    @contextlib.contextmanager
    def exchange(self, method: str, target: str, cid: str) -> Iterator[http.client.HTTPResponse]:
        """The response to one request; its connection is kept where it was read to its end."""
        ends = time.monotonic() + self._block_seconds
        connection: http.client.HTTPConnection | None = None
        response: http.client.HTTPResponse | None = None
        try:
            connection, response = self._ask(method, target, ends)
            yield response
            if response.status != HTTPStatus.OK and (response.length or 0) <= SMALL_BYTES:
                response.read(SMALL_BYTES)
            if response.isclosed() and not response.will_close:
                self._idle.append(connection)
                connection = None
        except (OSError, http.client.HTTPException) as error:
            raise self._unanswered(cid, error, ends) from error
        finally:
            if connection is not None:
                connection.close()
                if response is not None:
                    response.close()  # one that ends its connection owns the socket

    def close(self) -> None:
        """Let go of connections that are not in use; later requests open new ones."""
        while self._idle:
            self._idle.pop().close()

    def _ask(
        self, method: str, target: str, ends: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        while True:
            wait = min(self._timeout_seconds, _left(ends))
            try:
                connection, kept = self._idle.pop(), True
            except IndexError:
                connection, kept = self._connect(wait), False
            try:
                if kept and connection.sock.gettimeout() != wait:
                    connection.sock.settimeout(wait)
                cast(Any, connection).response_class = _by(ends)
                connection.request(method, target, headers=self._headers)
                return connection, connection.getresponse()
            except _STALE:
                connection.close()
                # A kept connection that was closed meanwhile says nothing about the host.
                if not kept:
                    raise
            except BaseException:
                connection.close()
                raise

    def _buffer(self) -> memoryview:
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = memoryview(bytearray(LEAF_BYTES))
        return buffer

    def _read(self, cid: str, response: http.client.HTTPResponse, buffer: memoryview) -> int:
        if response.length is not None and response.length > LEAF_BYTES:
            raise self._too_large(cid)
        size = 0
        while size < LEAF_BYTES and (more := response.readinto(buffer[size:])):
            size += more
        if response.length:
            raise ContentError(f"{self._name} broke off in the middle of {cid}", cid=cid)
        if size == LEAF_BYTES and response.read(1):
            raise self._too_large(cid)
        return size

    def _unanswered(self, cid: str, error: Exception, ends: float) -> ContentError:
        if isinstance(error, TimeoutError) and time.monotonic() >= ends:
            return ContentError(
                f"{self._name} is too slow: {cid} was not there in {self._block_seconds:g} s",
                cid=cid,
                hint="a block has at most 1 MiB; name further places with --store",
            )
        reason = str(error) or type(error).__name__
        return ContentError(f"{self._name} does not answer: {reason}", cid=cid, hint=self._hint)

    def _too_large(self, cid: str) -> ContentTooLarge:
        return ContentTooLarge(
            f"{self._name} sends more than {LEAF_BYTES} bytes for the block {cid}", cid=cid
        )


class _Timed(io.RawIOBase):
    """What a socket receives until the moment ``ends``; TimeoutError from then on."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, ends: float) -> None:
        self._raw = raw
        self._sock = sock
        self._ends = ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = _left(self._ends)
        # Only close to the deadline: setting it costs a system call.
        if left < (self._sock.gettimeout() or 0.0):
            self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _by(ends: float) -> Callable[..., http.client.HTTPResponse]:
    """What makes a response that is read until the moment ``ends``."""

    def made(sock: socket.socket, *arguments: Any, **named: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *arguments, **named)
        response.fp = io.BufferedReader(_Timed(response.fp.detach(), sock, ends))
        return response

    return made


def _left(ends: float) -> float:
    """Seconds until the moment ``ends``; TimeoutError where it is over."""
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
