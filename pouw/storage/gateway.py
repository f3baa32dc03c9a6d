"""Trustless HTTP gateways: blocks by ``GET /ipfs/CID?format=raw``, every one of them hashed.

As specs.ipfs.tech, "Trustless Gateway", has it; ``pouw store serve`` is one, Kubo's gateway and
public ones are others. A gateway can refuse or be slow, it cannot deceive: what it sends goes into
a buffer that nobody sees before its hash was compared. ``http.client`` is used because it reads
into that buffer; each thread has one, and connections are kept.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final, NoReturn
from urllib.parse import urlsplit

from pouw import __version__
from pouw.errors import ConfigError, ContentError, ContentMismatch, ContentNotFound, ContentTooLarge
from pouw.storage.block import LEAF_BYTES, cid_bytes, verify_block
from pouw.storage.network import NetworkStore

TIMEOUT_SECONDS: Final = 15.0
_HEADERS: Final = {
    "Accept": "application/vnd.ipld.raw",
    "User-Agent": f"pouw/{__version__}",
}
_ABSENT: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.GATEWAY_TIMEOUT})
_STALE: Final = (
    http.client.RemoteDisconnected,
    BrokenPipeError,
    ConnectionResetError,
    ConnectionAbortedError,
)
_SMALL_BYTES: Final = 1 << 14


class GatewayStore(NetworkStore):
    """``Store`` that reads from one gateway; what would write raises ContentError.

    ConfigError where ``url`` is not the address of one.
    """

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ConfigError(
                f"not the address of a gateway: {url!r}", hint="an address such as https://HOST"
            )
        self.name = url.rstrip("/")
        self._connect = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._host, self._port = parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/").removesuffix("/ipfs")
        self._timeout_seconds = timeout_seconds
        self._idle: list[http.client.HTTPConnection] = []
        self._local = threading.local()

    def get_block(self, cid: str) -> bytes:
        """The verified bytes of one block, at most 1 MiB."""
        return bytes(self.fetch(cid))

    def fetch(self, cid: str) -> memoryview:
        """As ``get_block``; the bytes hold until the same thread fetches again."""
        cid_bytes(cid)
        buffer, size, refusal = self._buffer(), 0, None
        with self._exchange("GET", cid) as response:
            if response.status == HTTPStatus.OK:
                size = self._read(cid, response, buffer)
            else:
                refusal = self._refusal(cid, response)
        if refusal is not None:
            raise refusal
        try:
            return verify_block(cid, buffer[:size])
        except ContentMismatch as error:
            raise ContentMismatch(
                f"{self.name} sent something else for {cid}: {error}", cid=cid, hint=error.hint
            ) from error

    def has_block(self, cid: str) -> bool:
        """Whether the gateway says that it has the block; nothing is verified."""
        cid_bytes(cid)
        with self._exchange("HEAD", cid) as response:
            return response.status == HTTPStatus.OK

    def put_block(self, cid: str, data: bytes) -> None:
        """Refused: ContentError."""
        self._refuse(cid)

    def pin(self, cid: str) -> None:
        """Refused: ContentError."""
        self._refuse(cid)

    def unpin(self, cid: str) -> None:
        """Refused: ContentError."""
        self._refuse(cid)

    def pins(self) -> frozenset[str]:
        """Nothing: what a gateway keeps is not told."""
        return frozenset()

    def close(self) -> None:
        """Let go of connections; a store that is used again opens new ones."""
        while self._idle:
            self._idle.pop().close()

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
            raise ContentError(f"{self.name} broke off in the middle of {cid}", cid=cid)
        if size == LEAF_BYTES and response.read(1):
            raise self._too_large(cid)
        return size

    @contextlib.contextmanager
    def _exchange(self, method: str, cid: str) -> Iterator[http.client.HTTPResponse]:
        """The response to one request; its connection is kept where it was read to its end."""
        connection = None
        try:
            connection, response = self._ask(method, f"{self._prefix}/ipfs/{cid}?format=raw")
            yield response
            if response.status != HTTPStatus.OK and (response.length or 0) <= _SMALL_BYTES:
                response.read(_SMALL_BYTES)
            if response.isclosed() and not response.will_close:
                self._idle.append(connection)
                connection = None
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise ContentError(
                f"{self.name} does not answer: {reason}",
                cid=cid,
                hint="is the address right, and the gateway running?",
            ) from error
        finally:
            if connection is not None:
                connection.close()

    def _ask(
        self, method: str, target: str
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        while True:
            try:
                connection, kept = self._idle.pop(), True
            except IndexError:
                connection, kept = self._open(), False
            try:
                connection.request(method, target, headers=_HEADERS)
                return connection, connection.getresponse()
            except _STALE:
                connection.close()
                # A kept connection that was closed meanwhile says nothing about the gateway.
                if not kept:
                    raise
            except BaseException:
                connection.close()
                raise

    def _open(self) -> http.client.HTTPConnection:
        return self._connect(self._host, self._port, timeout=self._timeout_seconds)

    def _refusal(self, cid: str, response: http.client.HTTPResponse) -> ContentError:
        answer = f"{response.status} {response.reason}".strip()
        if response.status in _ABSENT:
            return ContentNotFound(f"{self.name} does not have {cid} ({answer})", cid=cid)
        hint = None
        if 300 <= response.status < 400:
            hint = f"name the gateway it points to: {response.headers.get('Location', '')[:200]!r}"
        return ContentError(f"{self.name} refuses {cid}: {answer}", cid=cid, hint=hint)

    def _too_large(self, cid: str) -> ContentTooLarge:
        return ContentTooLarge(
            f"{self.name} sends more than {LEAF_BYTES} bytes for the block {cid}", cid=cid
        )

    def _refuse(self, cid: str) -> NoReturn:
        raise ContentError(
            f"{self.name} is a gateway: it can only be read",
            cid=cid,
            hint="name a folder or an IPFS daemon first: --store pouw-store,https://HOST",
        )
