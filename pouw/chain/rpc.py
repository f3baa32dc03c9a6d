"""One JSON-RPC endpoint: plain requests over web3's HTTP provider, every answer checked.

An answer is a stranger's: whatever is not of the expected form becomes ChainUnavailable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from eth_utils import is_address, to_checksum_address
from web3 import HTTPProvider
from web3.exceptions import Web3Exception
from web3.types import RPCEndpoint

from pouw.errors import ChainUnavailable, ConfigError
from pouw.types import Address

BlockTag = str | int
_PAUSE_SECONDS: Final = 0.2
_SHOWN: Final = 300
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class EndpointRefused(ChainUnavailable):
    """The endpoint answered a request with an error: its code, message and data."""

    def __init__(self, url: str, code: int, message: str, data: bytes | None) -> None:
        super().__init__(f"{url} refused the request: {message[:_SHOWN]} ({code})")
        self.code = code
        self.message = message
        self.data = data


class EndpointSlow(ChainUnavailable):
    """The endpoint did not answer in time: a smaller request may do better."""


class Endpoint:
    """Requests to one chain; ``url`` is for messages and holds no secret."""

    def __init__(self, provider: HTTPProvider, session: requests.Session) -> None:
        self.url = shown_url(str(provider.endpoint_uri))
        self._provider = provider
        self._session = session
        self._chain_id: int | None = None

    @classmethod
    def connect(cls, url: str, timeout_seconds: float = 20.0) -> Endpoint:
        """An endpoint at an http(s) address; nothing is sent yet."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ConfigError(
                f"{shown_url(url)} is not an http(s) address", hint="--rpc http://127.0.0.1:8545"
            )
        session = requests.Session()
        session.trust_env = parts.hostname not in _LOOPBACK  # no proxy leads to oneself
        provider = HTTPProvider(
            url,
            request_kwargs={"timeout": timeout_seconds, "allow_redirects": False},
            session=session,
            exception_retry_configuration=None,
        )
        return cls(provider, session)

    def close(self) -> None:
        """Let go of its connections; it opens new ones when asked again."""
        self._session.close()

    def request(self, method: str, *params: Any) -> Any:
        """The result member of the answer, as it came.

        EndpointRefused where the answer is an error, ChainUnavailable where there is none. A
        broken connection is tried once more: every request here may be repeated, a raw
        transaction too.
        """
        return self._result(
            self._ask(lambda: self._provider.make_request(RPCEndpoint(method), list(params)))
        )

    def request_many(self, method: str, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """The results of several requests in one batch, EndpointRefused in place of an error.

        EndpointRefused is raised where the endpoint refuses the batch as a whole.
        """
        batch = [(RPCEndpoint(method), list(params)) for params in calls]
        responses = self._ask(lambda: self._provider.make_batch_request(batch))
        if not isinstance(responses, list):
            self._result(responses)
            raise self._unavailable("answers a batch with one result")
        if len(responses) != len(calls):
            raise self._unavailable("answers another number of requests than it was asked")
        return [self._result_or_refusal(response) for response in responses]

    def _ask(self, send: Callable[[], Any]) -> Any:
        with self._explained():
            try:
                return send()
            except requests.ConnectionError:
                time.sleep(_PAUSE_SECONDS)
                return send()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except requests.Timeout as error:
            raise EndpointSlow(
                f"the chain at {self.url} does not answer in time",
                hint="is it running, and is --rpc its address?",
            ) from error
        except requests.ConnectionError as error:
            raise self._unavailable("does not answer") from error
        except requests.RequestException as error:
            raise self._unavailable(_network_words(error)) from error
        except (Web3Exception, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._unavailable("answers something else than JSON-RPC") from error

    def _result_or_refusal(self, response: Any) -> Any:
        try:
            return self._result(response)
        except EndpointRefused as refused:
            return refused

    def _result(self, response: Any) -> Any:
        if not hasattr(response, "get"):
            raise self._unavailable("answers something else than JSON-RPC")
        error = response.get("error")
        if error is not None:
            raise self._refused(error)
        if "result" not in response:
            raise self._unavailable("answers without a result")
        return response["result"]

    def _refused(self, error: Any) -> EndpointRefused:
        fields: Any = error if hasattr(error, "get") else {"message": str(error)}
        code = fields.get("code")
        data: Any = fields.get("data")
        if hasattr(data, "get"):
            data = data.get("data", data.get("result"))
        return EndpointRefused(
            self.url,
            code if isinstance(code, int) else 0,
            str(fields.get("message")),
            _revert_bytes(data),
        )

    def _unavailable(self, what: str) -> ChainUnavailable:
        return ChainUnavailable(
            f"the chain at {self.url} {what}",
            hint="is it running, and is --rpc its address?",
        )

    def malformed(self, method: str) -> ChainUnavailable:
        """The error for an answer that is not what ``method`` returns."""
        return ChainUnavailable(f"the chain at {self.url} answers nonsense to {method}")

    def quantity(self, method: str, *params: Any) -> int:
        """The answer as an integer."""
        return as_quantity(self.request(method, *params), self.malformed(method))

    def data(self, method: str, *params: Any) -> bytes:
        """The answer as bytes."""
        return as_bytes(self.request(method, *params), self.malformed(method))

    def chain_id(self) -> int:
        """The chain's id; asked once."""
        if self._chain_id is None:
            self._chain_id = self.quantity("eth_chainId")
        return self._chain_id

    def block_number(self) -> int:
        """The number of the latest block."""
        return self.quantity("eth_blockNumber")

    def block(self, block: BlockTag) -> dict[str, Any]:
        """The block's fields, without its transactions' contents."""
        answer = self.request("eth_getBlockByNumber", tag(block), False)
        if not hasattr(answer, "get") or "timestamp" not in answer:
            raise self.malformed("eth_getBlockByNumber")
        return dict(answer)

    def timestamp(self, block: BlockTag) -> int:
        """The block's time in seconds since the epoch."""
        wrong = self.malformed("eth_getBlockByNumber")
        return as_quantity(self.block(block)["timestamp"], wrong)


def shown_url(url: str) -> str:
    """Scheme, host and port: user names, keys in paths and queries are secrets."""
    parts = urlsplit(url)
    host = parts.hostname or "?"
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def tag(block: BlockTag) -> str:
    """A block number or tag as JSON-RPC takes it."""
    return hex(block) if isinstance(block, int) else block


def as_quantity(value: Any, wrong: ChainUnavailable) -> int:
    """``value`` as a non-negative integer, or ``wrong`` raised."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.startswith("0x") and len(value) <= 66:
        try:
            return int(value, 16)
        except ValueError:
            raise wrong from None
    raise wrong


def as_bytes(value: Any, wrong: ChainUnavailable, size: int | None = None) -> bytes:
    """``value`` as bytes (of ``size``), or ``wrong`` raised."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            value = bytes.fromhex(value[2:])
        except ValueError:
            raise wrong from None
    if not isinstance(value, bytes) or (size is not None and len(value) != size):
        raise wrong
    return bytes(value)


def as_address(text: str) -> Address:
    """``text`` with the checksum; ConfigError where it is no address."""
    if not is_address(text):
        raise ConfigError(f"{text[:80]!r} is not an address", hint="0x and 40 hexadecimal digits")
    return Address(to_checksum_address(text))


def _network_words(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"answers with HTTP status {error.response.status_code}"
    return "cannot be asked"


def _revert_bytes(data: Any) -> bytes | None:
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        text = data.removeprefix("Reverted ")
        try:
            return bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            return None
    return None
