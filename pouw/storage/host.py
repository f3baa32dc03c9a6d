"""Blocks over HTTP from one host, each of which is there by a deadline or given up.

``http.client`` is used because it reads into a buffer; each thread has one, and connections are
kept. What is read of a response, its head included, and all that comes before it has a bound.
"""

from __future__ import annotations

import contextlib
import copy
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Self

from pouw.errors import ContentError, ContentMismatch, ContentTooLarge
from pouw.storage.block import LEAF_BYTES, verify_block
from pouw.storage.bound import Bound
from pouw.storage.wire import Connect, Connection, Flood

BLOCK_SECONDS: Final = 60.0
"""By when a block of 1 MiB is there: 17 KiB/s, eight of them at a time 1.1 Mbit/s."""
SMALL_BYTES: Final = 1 << 14
_SHOWN: Final = 200
_STALE: Final = (
    http.client.RemoteDisconnected,
    BrokenPipeError,
    ConnectionResetError,
    ConnectionAbortedError,
)

Refusal = Callable[[http.client.HTTPResponse], ContentError]


@dataclass(frozen=True, slots=True)
class Request:
    """What a host is asked; errors call what it should answer ``what``, and name ``cid``.

    A ``body`` goes in chunks: js-ipfs takes none that declares more than 1 MiB.
    """

    method: str
    target: str
    what: str
    cid: str | None = None
    body: tuple[bytes, ...] | None = None
    content_type: str | None = None


class Host:
    """A host that errors call ``name``, to which ``connect`` makes a connection.

    No wait lasts longer than ``timeout_seconds``, all of connecting being one of them, and no
    exchange longer than ``block_seconds``. ``hint`` says what to look at where it does not answer.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
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
        self._idle: list[Connection] = []
        self._local = threading.local()
        self._endings: tuple[threading.Event, ...] = ()

    def until(self, ending: threading.Event) -> Self:
        """The same host, which has a second left for each exchange once ``ending`` is set."""
        host = copy.copy(self)
        host._endings = (*self._endings, ending)
        return host

    def bound(self, seconds: float, most_bytes: int) -> Bound:
        """A bound of so much, in which the host may be silent for as long as it lasts."""
        return Bound(seconds, most_bytes=most_bytes, endings=self._endings)

    def block(self, cid: str, method: str, target: str, refusal: Refusal) -> memoryview:
        """The verified block; its bytes hold until the same thread asks again.

        What ``refusal`` makes of any status but 200 is raised.
        """
        buffer, size, refused = self._buffer(), 0, None
        with self.exchange(Request(method, target, cid, cid)) as response:
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
    def exchange(
        self, request: Request, bound: Bound | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The response to one request; its connection is kept where it was read to its end.

        Without a ``bound`` it has the one of a block.
        """
        if bound is None:
            bound = Bound(self._block_seconds, self._timeout_seconds, endings=self._endings)
        connection: Connection | None = None
        try:
            connection, response = self._ask(request, bound)
            yield response
            if response.status != HTTPStatus.OK and (response.length or 0) <= SMALL_BYTES:
                response.read(SMALL_BYTES)
            if response.isclosed() and not response.will_close:
                self._idle.append(connection)
                connection = None
        # http.client raises ValueError where a chunk has less than no bytes.
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unanswered(request, error, bound) from error
        finally:
            if connection is not None:
                connection.drop()

    def close(self) -> None:
        """Let go of connections that are not in use; later requests open new ones."""
        while self._idle:
            self._idle.pop().drop()

    def _ask(self, request: Request, bound: Bound) -> tuple[Connection, http.client.HTTPResponse]:
        headers = self._headers
        if request.content_type is not None:
            headers = {**headers, "Content-Type": request.content_type}
        while True:
            try:
                connection, kept = self._idle.pop(), True
            except IndexError:
                connection, kept = self._connect(bound), False
            try:
                connection.bound = bound
                connection.request(request.method, request.target, request.body, headers)
                return connection, connection.getresponse()
            except _STALE:
                connection.drop()
                # A kept connection that was closed meanwhile says nothing about the host.
                if not kept:
                    raise
            except BaseException:
                connection.drop()
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

    def _unanswered(self, request: Request, error: Exception, bound: Bound) -> ContentError:
        cid, what = request.cid, request.what
        if bound.ended:
            return ContentError(
                f"{self._name} is not waited for: whoever wanted {what} has ended", cid=cid
            )
        if isinstance(error, Flood):
            return ContentTooLarge(
                f"{self._name} is left in the middle of {what}: {error}", cid=cid
            )
        if isinstance(error, TimeoutError) and bound.over:
            hint = "a block has at most 1 MiB; name further places with --store"
            return ContentError(
                f"{self._name} is too slow: {what} was not there in {bound.seconds:g} s",
                cid=cid,
                hint=hint if what == cid else self._hint,
            )
        reason = shown(str(error)) or type(error).__name__
        return ContentError(f"{self._name} does not answer: {reason}", cid=cid, hint=self._hint)

    def _too_large(self, cid: str) -> ContentTooLarge:
        return ContentTooLarge(
            f"{self._name} sends more than {LEAF_BYTES} bytes for the block {cid}", cid=cid
        )


def shown(words: str) -> str:
    """What a stranger wrote as a short line that no terminal obeys."""
    return "".join(sign if sign.isprintable() else "?" for sign in words[:_SHOWN].strip())
