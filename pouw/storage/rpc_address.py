"""Where the RPC of an IPFS daemon is: a URL or a multiaddr, and how one connects to it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import urlsplit

from pouw.errors import ConfigError
from pouw.storage.wire import Address, Connect, UnixAddress

if TYPE_CHECKING:
    from types import ModuleType


class RpcAddress(NamedTuple):
    """How to connect to an RPC, the path of its calls, the headers of each and its shown name."""

    connect: Connect
    path: str
    headers: dict[str, str]
    name: str

    @classmethod
    def parse(cls, address: str) -> Self:
        """What ``address`` says; ConfigError where it is none or the library is not here."""
        library = _library()
        multiaddr, base, login = _parts(address)
        try:
            url, unix, family, _ = library.http_common.multiaddr_to_url_data(multiaddr, base)
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 0
        except (library.exceptions.AddressError, ValueError) as error:
            raise _not_an_address(address) from error
        if unix is not None:
            connect = UnixAddress(unix).connect
        else:
            secure = parts.scheme == "https"
            connect = Address(host, port, secure=secure, family=family).connect
        name = f"ipfs:{address}" if login is None else f"ipfs:{multiaddr}"
        return cls(connect, parts.path.rstrip("/"), _authorization(login), name)


def _library() -> ModuleType:
    """ipfshttpclient, which is an extra."""
    try:
        import ipfshttpclient
    except ImportError as error:
        raise ConfigError(
            "an IPFS daemon needs a client library that is not installed",
            hint="pip install 'pouw[ipfs]'",
        ) from error
    library: ModuleType = ipfshttpclient
    return library


def _parts(address: str) -> tuple[str, str, tuple[str, str] | None]:
    """Multiaddr, base path and login (name, password) of the RPC at ``address``."""
    if address.startswith("/"):
        return address, "api/v0", None
    try:
        parts = urlsplit(address)
        host, given = parts.hostname, parts.port
    except ValueError as error:
        raise _not_an_address(address) from error
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise _not_an_address(address)
    kind = "ip6" if ":" in host else "ip4" if host.replace(".", "").isdigit() else "dns"
    port = given or (443 if parts.scheme == "https" else 80)
    login = (parts.username, parts.password or "") if parts.username else None
    base = parts.path.strip("/") or "api/v0"
    return f"/{kind}/{host}/tcp/{port}/{parts.scheme}", base, login


def _authorization(login: tuple[str, str] | None) -> dict[str, str]:
    if login is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(":".join(login).encode()).decode()}


def _not_an_address(address: str) -> ConfigError:
    return ConfigError(
        f"not the address of an IPFS daemon's RPC: {address!r}",
        hint="an address such as ipfs:http://127.0.0.1:5001 or ipfs:/ip4/127.0.0.1/tcp/5001",
    )
