"""An IPFS daemon of one's own, through its Kubo RPC: blocks in, blocks out, pins.

Blocks are made here and handed over one by one (``block/put``), never by ``add``: daemons cut
files in ways of their own. The daemon does what it is there for: it announces them, serves them
and finds those of others. What it returns is hashed as from anybody else.

Every call ends. ``version`` and ``block/stat`` are short, ``block/put``, ``pin/rm`` and ``pin/ls``
have to wait where the daemon collects, ``pin/add`` takes as long as the daemon shows progress. No
redirect is followed and nothing decompressed.
"""

from __future__ import annotations

import copy
import http.client
import secrets
import threading
from http import HTTPStatus
from typing import Any, Final, Self, TypeVar

import msgspec

from pouw.errors import ConfigError, ContentError, ContentNotFound
from pouw.storage.block import (
    check_block_size,
    cid_bytes,
    is_raw,
    text_of,
    verify_block,
)
from pouw.storage.bound import Bound
from pouw.storage.host import BLOCK_SECONDS, SMALL_BYTES, Host, Request, shown
from pouw.storage.network import NetworkStore
from pouw.storage.rpc_address import RpcAddress

SEARCH_SECONDS: Final = 20
LOCAL_SECONDS: Final = 2
ANSWER_SECONDS: Final = 120
OLDEST_KUBO: Final = (0, 13)
_JS: Final = "js-ipfs"
_SHORT_SECONDS: Final = 15
_PINS_BYTES: Final = 1 << 26
_PINNING_BYTES: Final = 1 << 23
_IS_IT_RUNNING: Final = "start it with `ipfs daemon`, or name another place with --store"
_IS_IT_THE_RPC: Final = "is the address that of the RPC (Addresses.API), not of the gateway?"


class _Version(msgspec.Struct):
    Version: str
    core: Any = msgspec.field(name="ipfs-core", default=None)


class _Kept(msgspec.Struct):
    Key: str


class _Pins(msgspec.Struct):
    Keys: dict[str, msgspec.Raw]


class _Pinning(msgspec.Struct):
    Progress: int = 0
    Pins: list[str] | None = None


class _Unpinned(msgspec.Struct):
    Pins: list[str]


class _Refusal(msgspec.Struct):
    Message: str


Answer = TypeVar("Answer")


class IpfsStore(NetworkStore):
    """``Store`` in the daemon whose RPC is at ``address``: a URL or a multiaddr.

    A block that the daemon lacks is searched for in its network for ``search_seconds``, and is left
    where it is not here ``block_seconds`` later; a pin where no further block came for as long.
    Other answers are here in ``answer_seconds``. ConfigError where the address, the client library
    or the daemon's version is of no use, ContentError where nothing answers.
    """

    def __init__(
        self,
        address: str,
        search_seconds: int = SEARCH_SECONDS,
        block_seconds: float = BLOCK_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        rpc = RpcAddress.parse(address)
        self.name = rpc.name
        self._path = rpc.path
        self._search_seconds = search_seconds
        self._block_seconds = search_seconds + block_seconds
        self._answer_seconds = answer_seconds
        self._short_seconds = min(_SHORT_SECONDS, answer_seconds)
        self._host = Host(
            self.name,
            rpc.connect,
            rpc.headers,
            search_seconds + self._short_seconds,
            self._block_seconds,
            _IS_IT_RUNNING,
        )
        try:
            self.version = self._checked_version()
        except BaseException:
            self.close()
            raise

    def until(self, ending: threading.Event) -> Self:
        """The same daemon, which is not waited for any longer once ``ending`` is set."""
        store = copy.copy(self)
        store._host = self._host.until(ending)
        return store

    def put_block(self, cid: str, data: bytes) -> None:
        """Keep one block; ContentMismatch where ``data`` does not hash to ``cid``."""
        check_block_size(len(data), cid)
        verify_block(cid, data)
        # What Kubo calls cid-codec now; js-ipfs and older daemons know only this name for it.
        codec = "raw" if is_raw(cid) else "dag-pb"
        call = f"block/put?format={codec}&mhtype=sha2-256&version=1"
        # Nobody who makes blocks for others can know the boundary.
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="block"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = (head.encode(), bytes(data), f"\r\n--{boundary}--\r\n".encode())
        request = self._request(call, cid, body, f"multipart/form-data; boundary={boundary}")
        bound = self._host.bound(self._answer_seconds, SMALL_BYTES)
        kept = self._answer("keep block", request, bound, _Kept)
        if kept.Key != cid:
            raise ContentError(
                f"{self.name} ({self.version}) keeps block {cid} as {shown(kept.Key)!r}", cid=cid
            )

    def get_block(self, cid: str) -> bytes:
        """The verified bytes of one block, at most 1 MiB."""
        return bytes(self.fetch(cid))

    def fetch(self, cid: str) -> memoryview:
        """As ``get_block``; the bytes hold until the same thread fetches again."""
        cid_bytes(cid)
        target = f"{self._path}/block/get?arg={cid}&timeout={self._search_seconds}s"
        doing = f"{self.name} cannot find block {cid}"
        return self._host.block(
            cid, "POST", target, lambda response: _refusal(doing, cid, response, absent=True)
        )

    def has_block(self, cid: str) -> bool:
        """Whether the daemon itself has the block: nothing is searched for, nothing verified."""
        cid_bytes(cid)
        call = f"block/stat?arg={cid}&offline=true&timeout={LOCAL_SECONDS}s"
        bound = self._host.bound(self._short_seconds, SMALL_BYTES)
        try:
            request = self._request(call, cid)
            self._answer("look for block", request, bound, _Kept, absent=True)
        except ContentNotFound:
            return False
        return True

    def pin(self, cid: str) -> None:
        """Keep the file or document until it is unpinned, fetching what the daemon lacks.

        ContentNotFound where no further block came for as long as one may take.
        """
        cid_bytes(cid)
        call = f"pin/add?arg={cid}&progress=true"
        if self.version.startswith(_JS):  # it shows no progress
            call = f"pin/add?arg={cid}&timeout={self._search_seconds}s"
        bound = self._host.bound(self._block_seconds, _PINNING_BYTES)
        doing, told = f"{self.name} cannot pin {cid}", None
        try:
            with self._host.exchange(self._request(call, cid), bound) as response:
                refused = _refused(doing, cid, response, absent=True)
                reached, pinned = 0, False
                while refused is None and (line := response.readline(SMALL_BYTES)):
                    told = _decoded(doing, line, _Pinning, cid)
                    pinned |= cid in map(_ours, told.Pins or ())
                    if told.Progress > reached:
                        reached = told.Progress
                        bound.prolong()
        except ContentError as error:
            if told is None or bound.ended or not bound.over:
                raise
            raise ContentNotFound(
                f"{doing}: no further block was there in {bound.seconds:g} s", cid=cid
            ) from error
        if refused is not None:
            raise refused
        if not pinned:
            raise ContentNotFound(f"{doing}: it broke off after {reached} blocks", cid=cid)

    def unpin(self, cid: str) -> None:
        """Let the file or document go at the next collection; no error where it was not pinned."""
        cid_bytes(cid)
        bound = self._host.bound(self._answer_seconds, SMALL_BYTES)
        try:
            self._answer("unpin", self._request(f"pin/rm?arg={cid}", cid), bound, _Unpinned)
        except ContentError as error:
            if "not pinned" not in str(error):
                raise

    def pins(self) -> frozenset[str]:
        """The CIDs that are pinned; pins of another kind than ours are left out."""
        bound = self._host.bound(self._answer_seconds, _PINS_BYTES)
        request = self._request("pin/ls?type=recursive")
        listed = self._answer("list the pins", request, bound, _Pins)
        return frozenset(filter(None, map(_ours, listed.Keys)))

    def close(self) -> None:
        """Let go of connections; a store that is used again opens new ones."""
        self._host.close()

    def _checked_version(self) -> str:
        bound = self._host.bound(self._short_seconds, SMALL_BYTES)
        told = self._answer("tell its version", self._request("version"), bound, _Version)
        version = shown(told.Version)
        if told.core is not None:
            return f"{_JS} {version}"
        try:
            numbers = tuple(int(part) for part in version.split("-")[0].split("."))
        except ValueError:
            numbers = ()
        if numbers < OLDEST_KUBO:
            raise ConfigError(
                f"{self.name} is version {version} of Kubo, which does not know our blocks",
                hint="update it: {}.{} or later works".format(*OLDEST_KUBO),
            )
        return f"Kubo {version}"

    def _request(
        self,
        call: str,
        cid: str | None = None,
        body: tuple[bytes, ...] | None = None,
        kind: str | None = None,
    ) -> Request:
        name = call.partition("?")[0]
        what = f"the answer to {name} {cid}" if cid else f"the answer to {name}"
        return Request("POST", f"{self._path}/{call}", what, cid, body, kind)

    def _answer(
        self, what: str, request: Request, bound: Bound, kind: type[Answer], *, absent: bool = False
    ) -> Answer:
        """The answer to a call; with ``absent``, a refusal means that it is not there."""
        doing = f"{self.name} cannot {what} {request.cid or ''}".rstrip()
        with self._host.exchange(request, bound) as response:
            refused = _refused(doing, request.cid, response, absent=absent)
            body = response.read() if refused is None else b""
        if refused is not None:
            raise refused
        return _decoded(doing, body, kind, request.cid)


def _refused(
    doing: str, cid: str | None, response: http.client.HTTPResponse, *, absent: bool
) -> ContentError | None:
    if response.status == HTTPStatus.OK:
        return None
    return _refusal(doing, cid, response, absent=absent)


def _refusal(
    doing: str, cid: str | None, response: http.client.HTTPResponse, *, absent: bool
) -> ContentError:
    """What the daemon says where it does not do something."""
    try:
        told = msgspec.json.decode(response.read(SMALL_BYTES), type=_Refusal)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        hint = _IS_IT_THE_RPC
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            hint = "its API.Authorizations or API.HTTPHeaders do not let this client in"
        said = f"{doing}: refused with status {response.status}"
        return ContentError(said, cid=cid, hint=hint)
    kind = ContentNotFound if absent else ContentError
    return kind(f"{doing}: {shown(told.Message)}", cid=cid)


def _decoded(doing: str, body: bytes, kind: type[Answer], cid: str | None) -> Answer:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ContentError(
            f"{doing}: it answers nonsense: {shown(str(error))}", cid=cid, hint=_IS_IT_THE_RPC
        ) from error


def _ours(cid: str) -> str | None:
    """``cid`` as it is written here; None where it is of another kind than ours."""
    import base58

    try:
        if cid.startswith("z"):  # js-ipfs writes CIDs so
            return text_of(base58.b58decode(cid[1:]))
        cid_bytes(cid)
    except (ContentError, ValueError):
        return None
    return cid
