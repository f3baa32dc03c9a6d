"""An IPFS daemon of one's own, through its Kubo RPC: blocks in, blocks out, pins.

Blocks are made here and handed over one by one (``block/put``), never by ``add``: daemons cut
files in ways of their own. The daemon does what it is there for: it announces them, serves them
and finds those of others. What it returns is hashed as from anybody else.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import socket
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pouw.errors import ConfigError, ContentError, ContentNotFound
from pouw.storage.block import (
    check_block_size,
    cid_bytes,
    is_raw,
    text_of,
    verify_block,
)
from pouw.storage.host import BLOCK_SECONDS, SMALL_BYTES, Host
from pouw.storage.network import NetworkStore

if TYPE_CHECKING:
    from types import ModuleType

SEARCH_SECONDS: Final = 20
LOCAL_SECONDS: Final = 2
TIMEOUT_SECONDS: Final = 120
OLDEST_KUBO: Final = (0, 13)
_UPLOAD_BYTES: Final = 1 << 18
_ANSWER_SECONDS: Final = 15
_IS_IT_RUNNING: Final = "start it with `ipfs daemon`, or name another place with --store"
_IS_IT_THE_RPC: Final = "is the address that of the RPC (Addresses.API), not of the gateway?"


class IpfsStore(NetworkStore):
    """``Store`` in the daemon whose RPC is at ``address``: a URL or a multiaddr.

    A block that the daemon lacks is searched for in its network for ``search_seconds``, and is left
    where it is not here ``block_seconds`` later. ConfigError where the address, the client library
    or the daemon's version is of no use, ContentError where nothing answers.
    """

    def __init__(
        self,
        address: str,
        search_seconds: int = SEARCH_SECONDS,
        block_seconds: float = BLOCK_SECONDS,
    ) -> None:
        self._library = _library()
        multiaddr, base, login = _parts(address)
        self.name = f"ipfs:{address}" if login is None else f"ipfs:{multiaddr}"
        self._search_seconds = search_seconds
        try:
            self._client = self._library.Client(
                multiaddr,
                base,
                session=True,
                chunk_size=_UPLOAD_BYTES,
                timeout=TIMEOUT_SECONDS,
                auth=login,
            )
        except self._library.exceptions.AddressError as error:
            raise _not_an_address(address) from error
        connect, self._base = _connector(self._library, multiaddr, base)
        # The library would wait for ever for a block that comes byte by byte.
        self._host = Host(
            self.name,
            connect,
            _authorization(login),
            search_seconds + _ANSWER_SECONDS,
            search_seconds + block_seconds,
            _IS_IT_RUNNING,
        )
        try:
            self.version = self._checked_version()
        except BaseException:
            self.close()
            raise

    def put_block(self, cid: str, data: bytes) -> None:
        """Keep one block; ContentMismatch where ``data`` does not hash to ``cid``."""
        check_block_size(len(data), cid)
        verify_block(cid, data)
        # What Kubo calls cid-codec now; js-ipfs and older daemons know only this name for it.
        options = {"format": "raw" if is_raw(cid) else "dag-pb", "mhtype": "sha2-256"}
        with self._explained("keep block", cid):
            answer = self._client.block.put(io.BytesIO(data), opts={**options, "version": "1"})
        if answer.get("Key") != cid:
            raise ContentError(
                f"{self.name} ({self.version}) keeps block {cid} as {answer.get('Key')!r}", cid=cid
            )

    def get_block(self, cid: str) -> bytes:
        """The verified bytes of one block, at most 1 MiB."""
        return bytes(self.fetch(cid))

    def fetch(self, cid: str) -> memoryview:
        """As ``get_block``; the bytes hold until the same thread fetches again."""
        cid_bytes(cid)
        target = f"{self._base}/block/get?arg={cid}&timeout={self._search_seconds}s"
        return self._host.block(cid, "POST", target, lambda response: self._refusal(cid, response))

    def has_block(self, cid: str) -> bool:
        """Whether the daemon itself has the block: nothing is searched for, nothing verified."""
        cid_bytes(cid)
        try:
            with self._explained("look for block", cid, absent=True):
                self._client.block.stat(
                    cid, opts={"offline": "true", "timeout": f"{LOCAL_SECONDS}s"}
                )
        except ContentNotFound:
            return False
        return True

    def pin(self, cid: str) -> None:
        """Keep the file or document until it is unpinned, fetching what the daemon lacks.

        ContentNotFound where it is not found for ``search_seconds``.
        """
        cid_bytes(cid)
        with self._explained("pin", cid, absent=True):
            self._client.pin.add(cid, opts={"timeout": f"{self._search_seconds}s"})

    def unpin(self, cid: str) -> None:
        """Let the file or document go at the next collection; no error where it was not pinned."""
        cid_bytes(cid)
        try:
            with self._explained("unpin", cid):
                self._client.pin.rm(cid)
        except ContentError as error:
            if "not pinned" not in str(error):
                raise

    def pins(self) -> frozenset[str]:
        """The CIDs that are pinned; pins of another kind than ours are left out."""
        with self._explained("list the pins"):
            listed = self._client.pin.ls(type="recursive")
            return frozenset(filter(None, map(_ours, listed["Keys"])))

    def close(self) -> None:
        """Let go of connections; a store that is used again opens new ones."""
        self._client.close()
        self._host.close()

    def _checked_version(self) -> str:
        with self._explained("tell its version"):
            answer = self._client.version()
            version = str(answer["Version"])
        if "ipfs-core" in answer:
            return f"js-ipfs {version}"
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

    @contextlib.contextmanager
    def _explained(self, what: str, cid: str = "", *, absent: bool = False) -> Iterator[None]:
        """Errors of the client as ours; with ``absent``, a refusal means that it is not there."""
        errors = self._library.exceptions
        doing = f"{self.name} cannot {what} {cid}".rstrip()
        try:
            yield
        except errors.ErrorResponse as error:
            kind = ContentNotFound if absent else ContentError
            raise kind(f"{doing}: {error}", cid=cid or None) from error
        except errors.StatusError as error:
            raise _refused(doing, error.original.response.status_code, cid) from error
        except errors.TimeoutError as error:
            kind = ContentNotFound if absent else ContentError
            raise kind(f"{doing}: no answer in {TIMEOUT_SECONDS} s", cid=cid or None) from error
        except errors.ConnectionError as error:
            raise ContentError(
                f"{self.name} does not answer",
                cid=cid or None,
                hint=_IS_IT_RUNNING,
            ) from error
        except (errors.Error, OSError, KeyError) as error:  # requests' own errors are OSErrors
            raise ContentError(
                f"{doing}: it answers nonsense: {error}",
                cid=cid or None,
                hint=_IS_IT_THE_RPC,
            ) from error

    def _refusal(self, cid: str, response: http.client.HTTPResponse) -> ContentError:
        """What the daemon says of a block that it does not send."""
        doing = f"{self.name} cannot find block {cid}"
        try:
            told = json.loads(response.read(SMALL_BYTES))["Message"]
        except (ValueError, TypeError, KeyError):
            return _refused(doing, response.status, cid)
        return ContentNotFound(f"{doing}: {told}", cid=cid)


def _refused(doing: str, status: int, cid: str) -> ContentError:
    hint = _IS_IT_THE_RPC
    if status in (401, 403):
        hint = "its API.Authorizations or API.HTTPHeaders do not let this client in"
    return ContentError(f"{doing}: refused with status {status}", cid=cid or None, hint=hint)


def _library() -> ModuleType:
    """ipfshttpclient, which is an extra."""
    try:
        import ipfshttpclient
    except ImportError as error:
        raise ConfigError(
            "an IPFS daemon needs a client library that is not installed",
            hint="pip install 'pouw[ipfs]'",
        ) from error
    # It hands urllib3 an argument that has had no meaning for years.
    warnings.filterwarnings("ignore", "The 'strict' parameter", FutureWarning, "urllib3")
    library: ModuleType = ipfshttpclient
    return library


def _parts(address: str) -> tuple[str, str, tuple[str, str] | None]:
    """Multiaddr, base path and login (name, password) of the RPC at ``address``."""
    if address.startswith("/"):
        return address, "api/v0", None
    parts = urlsplit(address)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise _not_an_address(address)
    kind = "ip6" if ":" in host else "ip4" if host.replace(".", "").isdigit() else "dns"
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise _not_an_address(address) from error
    login = (parts.username, parts.password or "") if parts.username else None
    base = parts.path.strip("/") or "api/v0"
    return f"/{kind}/{host}/tcp/{port}/{parts.scheme}", base, login


def _connector(
    library: ModuleType, multiaddr: str, base: str
) -> tuple[Callable[[float], http.client.HTTPConnection], str]:
    """What connects to the RPC with a timeout, and the path of its calls."""
    url, unix, *_ = library.http_common.multiaddr_to_url_data(multiaddr, base)
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if unix is not None:
        return lambda timeout: _UnixConnection(unix, timeout), path
    secure = parts.scheme == "https"
    connection = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    host, port = parts.hostname or "", parts.port
    return lambda timeout: connection(host, port, timeout=timeout), path


class _UnixConnection(http.client.HTTPConnection):
    """HTTP through the socket at ``path``."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _authorization(login: tuple[str, str] | None) -> dict[str, str]:
    if login is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(":".join(login).encode()).decode()}


def _not_an_address(address: str) -> ConfigError:
    return ConfigError(
        f"not the address of an IPFS daemon's RPC: {address!r}",
        hint="an address such as ipfs:http://127.0.0.1:5001 or ipfs:/ip4/127.0.0.1/tcp/5001",
    )


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
