"""One JSON-RPC endpoint over HTTP: plain requests, every answer checked.

An answer is a stranger's: whatever is not of the expected form becomes ChainUnavailable, and what
is larger than any answer has to be is not read.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec
import requests
from eth_utils import is_address, to_checksum_address

from pouw.chain.patience import PatientAdapter, in_time
from pouw.errors import ChainUnavailable, ConfigError
from pouw.types import Address

BlockTag = str | int
_PAUSE_SECONDS: Final = 0.2
_ANSWER_TIMEOUTS: Final = 3
_SHOWN: Final = 300
_MOST_BYTES: Final = 1 << 26
_PIECE_BYTES: Final = 1 << 20
_MOST_OPENINGS: Final = 10_000
_HEADERS: Final = {"Content-Type": "application/json"}
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

Result = TypeVar("Result")


class EndpointRefused(ChainUnavailable):
    """The endpoint answered a request with an error: its code, message and data."""

    def __init__(self, url: str, code: int, message: str, data: bytes | None) -> None:
        super().__init__(f"{url} refused the request: {message[:_SHOWN]} ({code})")
        self.code = code
        self.message = message
        self.data = data


class EndpointSlow(ChainUnavailable):
    """The endpoint did not answer in time, or with too much: a smaller request may do better."""


class _Answer(msgspec.Struct, Generic[Result]):
    """What the endpoint answers to one request: a result or an error."""

    id: int | str | None = None
    result: Result | msgspec.UnsetType | None = msgspec.UNSET
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Told(io.BytesIO):
    """The body of a request that tells when it was sent, which is when there is no more to read."""

    def __init__(self, body: bytes, on_sent: Callable[[], object]) -> None:
        super().__init__(body)
        self._on_sent = on_sent

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        piece = super().read(size)
        if not piece:
            self._on_sent()
        return piece


class Endpoint:
    """Requests to one chain; ``url`` is for messages and holds no secret.

    ``latest_block``: the last answer to ``block_number``, None before the first.
    """

    def __init__(self, address: str, session: requests.Session, timeout_seconds: float) -> None:
        self.url = shown_url(address)
        self._address = address
        self._session = session
        self._timeout_seconds = timeout_seconds
        self._chain_id: int | None = None
        self.latest_block: int | None = None

    @classmethod
    def connect(cls, url: str, timeout_seconds: float = 20.0) -> Endpoint:
        """An endpoint at an http(s) address; nothing is sent yet.

        It may be silent for ``timeout_seconds``, and has three times as long for a whole answer.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ConfigError(
                f"{shown_url(url)} is not an http(s) address", hint="--rpc http://127.0.0.1:8545"
            )
        session = requests.Session()
        session.trust_env = parts.hostname not in _LOOPBACK  # no proxy leads to oneself
        session.mount(f"{parts.scheme}://", PatientAdapter(_ANSWER_TIMEOUTS * timeout_seconds))
        return cls(url, session, timeout_seconds)

    def close(self) -> None:
        """Let go of its connections; it opens new ones when asked again."""
        self._session.close()

    def request(self, method: str, *params: Any) -> Any:
        """The result member of the answer, as it came.

        EndpointRefused where the answer is an error, ChainUnavailable where there is none. A
        broken connection is tried once more: every request here may be repeated, a raw
        transaction too.
        """
        return self._result(self._send(method, _request(0, method, params), _ANYTHING)())

    def request_many(
        self, method: str, calls: Sequence[Sequence[Any]], kind: type[Result]
    ) -> list[Result | EndpointRefused | None]:
        """The results of several requests in one batch, EndpointRefused in place of an error.

        A single request goes as itself. Every result is a ``kind``, ChainUnavailable where one is
        not. EndpointRefused is raised where the endpoint refuses the batch as a whole.
        """
        return self.send_many(method, calls, kind)()

    def send_many(
        self,
        method: str,
        calls: Sequence[Sequence[Any]],
        kind: type[Result],
        on_sent: Callable[[], object] | None = None,
    ) -> Callable[[], list[Result | EndpointRefused | None]]:
        """As ``request_many`` until the answer begins: what is returned reads and checks it.

        ``on_sent`` is called once the endpoint has the whole request. So another thread can wait
        for the answer, and contends for the interpreter neither before that nor while one is read.
        """
        expected: Any = _answer(kind)
        if len(calls) == 1:
            one = self._send(method, _request(0, method, calls[0]), expected, on_sent)
            return lambda: [self._result_or_refusal(one())]
        batch = [_request(place, method, params) for place, params in enumerate(calls)]
        several = self._send(method, batch, expected | list[expected], on_sent)
        return lambda: self._in_order(several(), len(calls))

    def _in_order(self, answers: Any, number: int) -> list[Any]:
        """The results of a batch in the order of its requests."""
        if not isinstance(answers, list):
            self._result(answers)
            raise self._unavailable("answers a batch with one result")
        # The order of a batch's answers is the endpoint's own.
        by_place = {answer.id: answer for answer in answers if isinstance(answer.id, int)}
        if len(answers) != number or by_place.keys() != set(range(number)):
            raise self._unavailable("answers other requests than it was asked")
        return [self._result_or_refusal(by_place[place]) for place in range(number)]

    def _send(
        self,
        method: str,
        content: Any,
        kind: Any,
        on_sent: Callable[[], object] | None = None,
    ) -> Callable[[], Any]:
        """Send ``content``; what is returned reads the answer, a ``kind``."""
        body = json.dumps(content).encode()
        with self._explained():
            try:
                response = self._post(body if on_sent is None else _Told(body, on_sent))
            except requests.ConnectionError:
                response = self._post_again(body)

        def answer() -> Any:
            with self._explained():
                try:
                    found = self._read(response)
                except requests.ConnectionError:
                    found = self._read(self._post_again(body))
            return self._parsed(method, found, kind)

        return answer

    def _parsed(self, method: str, answer: bytes, kind: Any) -> Any:
        try:
            return msgspec.json.decode(_shallow(answer) if kind is _ANYTHING else answer, type=kind)
        except msgspec.ValidationError as error:
            raise self.malformed(method) from error
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._unavailable("answers something else than JSON-RPC") from error

    def _post(self, body: bytes | io.BytesIO) -> requests.Response:
        return self._session.post(
            self._address,
            data=body,
            headers=_HEADERS,
            timeout=self._timeout_seconds,
            allow_redirects=False,
            stream=True,
        )

    def _post_again(self, body: bytes) -> requests.Response:
        time.sleep(_PAUSE_SECONDS)
        return self._post(body)

    def _read(self, response: requests.Response) -> bytes:
        with response:
            response.raise_for_status()
            pieces, size = [], 0
            for piece in in_time(response.iter_content(_PIECE_BYTES)):
                pieces.append(piece)
                size += len(piece)
                if size > _MOST_BYTES:
                    raise EndpointSlow(f"the chain at {self.url} answers with too many bytes")
            return b"".join(pieces)

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

    def _result_or_refusal(self, answer: _Answer[Result]) -> Result | EndpointRefused | None:
        try:
            return self._result(answer)
        except EndpointRefused as refused:
            return refused

    def _result(self, answer: _Answer[Result]) -> Result | None:
        error = self._error(bytes(answer.error))
        if error is not None:
            raise self._refused(error)
        if answer.result is msgspec.UNSET:
            raise self._unavailable("answers without a result")
        return answer.result

    def _error(self, answer: bytes) -> Any:
        try:
            return msgspec.json.decode(_shallow(answer))
        except ValueError as error:
            raise self._unavailable("answers something else than JSON-RPC") from error

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
        self.latest_block = number = self.quantity("eth_blockNumber")
        return number

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


def _request(place: int, method: str, params: Sequence[Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": place, "method": method, "params": list(params)}


def _answer(kind: Any) -> Any:
    """The type of an answer with a ``kind`` as its result."""
    generic: Any = _Answer
    return generic[kind]


_ANYTHING: Final = _answer(Any)


def _shallow(answer: bytes) -> bytes:
    """``answer``, or ValueError where it may be nested deeper than the stack is.

    Parsers recurse, and py-evm lifts Python's limit on that to more than a thread can take.
    """
    if answer.count(b"[") + answer.count(b"{") > _MOST_OPENINGS:
        raise ValueError("nested too deep")
    return answer


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
