"""Trustless HTTP gateways: blocks by ``GET /ipfs/CID?format=raw``, every one of them hashed.

As specs.ipfs.tech, "Trustless Gateway", has it; ``pouw store serve`` is one, Kubo's gateway and
public ones are others. A gateway can refuse or be slow, it cannot deceive: what it sends goes into
a buffer that nobody sees before its hash was compared.
"""

from __future__ import annotations

import copy
import http.client
import threading
from http import HTTPStatus
from typing import Final, NoReturn, Self
from urllib.parse import urlsplit

from pouw import __version__
from pouw.errors import ConfigError, ContentError, ContentNotFound
from pouw.storage.block import cid_bytes
from pouw.storage.host import BLOCK_SECONDS, Host, Request, shown
from pouw.storage.network import NetworkStore
from pouw.storage.wire import Address

TIMEOUT_SECONDS: Final = 15.0
_HEADERS: Final = {
    "Accept": "application/vnd.ipld.raw",
    "User-Agent": f"pouw/{__version__}",
}
_ABSENT: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.GATEWAY_TIMEOUT})


class GatewayStore(NetworkStore):
    """``Store`` that reads from one gateway; what would write raises ContentError.

    It is left where it is silent for ``timeout_seconds``, or a block is not there in
    ``block_seconds``. ConfigError where ``url`` is not the address of one.
    """

    def __init__(
        self,
        url: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        block_seconds: float = BLOCK_SECONDS,
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _not_an_address(url) from error
        if parts.scheme not in ("http", "https") or not host or parts.query:
            raise _not_an_address(url)
        self.name = url.rstrip("/")
        secure = parts.scheme == "https"
        self._prefix = parts.path.rstrip("/").removesuffix("/ipfs")
        self._host = Host(
            self.name,
            Address(host, port or (443 if secure else 80), secure=secure).connect,
            _HEADERS,
            timeout_seconds,
            block_seconds,
            "is the address right, and the gateway running?",
        )

    def until(self, ending: threading.Event) -> Self:
        """The same gateway, which is not waited for any longer once ``ending`` is set."""
        store = copy.copy(self)
        store._host = self._host.until(ending)
        return store

    def get_block(self, cid: str) -> bytes:
        """The verified bytes of one block, at most 1 MiB."""
        return bytes(self.fetch(cid))

    def fetch(self, cid: str) -> memoryview:
        """As ``get_block``; the bytes hold until the same thread fetches again."""
        return self._host.block(
            cid, "GET", self._target(cid), lambda response: self._refusal(cid, response)
        )

    def has_block(self, cid: str) -> bool:
        """Whether the gateway says that it has the block; nothing is verified."""
        with self._host.exchange(Request("HEAD", self._target(cid), cid, cid)) as response:
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
        self._host.close()

    def _target(self, cid: str) -> str:
        cid_bytes(cid)
        return f"{self._prefix}/ipfs/{cid}?format=raw"

    def _refusal(self, cid: str, response: http.client.HTTPResponse) -> ContentError:
        answer = shown(f"{response.status} {response.reason}")
        if response.status in _ABSENT:
            return ContentNotFound(f"{self.name} does not have {cid} ({answer})", cid=cid)
        hint = None
        if 300 <= response.status < 400:
            hint = f"name the gateway it points to: {response.headers.get('Location', '')[:200]!r}"
        return ContentError(f"{self.name} refuses {cid}: {answer}", cid=cid, hint=hint)

    def _refuse(self, cid: str) -> NoReturn:
        raise ContentError(
            f"{self.name} is a gateway: it can only be read",
            cid=cid,
            hint="name a folder or an IPFS daemon first: --store pouw-store,https://HOST",
        )


def _not_an_address(url: str) -> ConfigError:
    return ConfigError(
        f"not the address of a gateway: {url!r}", hint="an address such as https://HOST"
    )
