"""An endpoint that answers over real HTTP whatever the test says."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pouw.chain.abi import artifact
from pouw.chain.logs import LogAnswer
from pouw.chain.ranges import LogReader
from pouw.chain.rpc import Endpoint, EndpointRefused, EndpointSlow
from pouw.errors import ChainUnavailable
from pouw.types import Address

ARENA = Address("0x" + "22" * 20)
DEEP = b"[" * 1_000_000
DROPPED = next(item for item in artifact().events.values() if item.name == "TaskDropped").topic
WORD = "0x" + "00" * 31 + "01"


class Stranger(ThreadingHTTPServer):
    """Answers every request with ``body``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.body, self.status = b"", 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked: list[Any] = []


class _Answering(BaseHTTPRequestHandler):
    server: Stranger
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.may_answer.wait(60)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    with Stranger() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server
        server.shutdown()


@pytest.fixture
def endpoint(stranger: Stranger) -> Iterator[Endpoint]:
    connected = Endpoint.connect(f"http://127.0.0.1:{stranger.server_port}")
    yield connected
    connected.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"7",
        b"null",
        b"[]",
        b"{}",
        b'{"id": 0}',
        b'{"result": "0x1"',
        b'{"result": "\xff"}',
        b'{"result": ' + DEEP,
        b'{"error": ' + DEEP,
        b'{"other": ' + DEEP,
    ],
)
def test_request__answer_that_is_no_json_rpc__is_an_unavailable_chain(
    stranger: Stranger, endpoint: Endpoint, body: bytes
) -> None:
    stranger.body = body
    with lifted_recursion_limit(), pytest.raises(ChainUnavailable):
        endpoint.request("eth_blockNumber")


@contextmanager
def lifted_recursion_limit() -> Iterator[None]:
    """As high as the libraries of the embedded EVM set it."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("body", [b'[{"error": ' + DEEP, b'[{"other": ' + DEEP, DEEP])
def test_batch__nested_deeper_than_the_stack__is_an_unavailable_chain(
    stranger: Stranger, endpoint: Endpoint, body: bytes
) -> None:
    stranger.body = body
    with lifted_recursion_limit(), pytest.raises(ChainUnavailable):
        endpoint.request_many("eth_getLogs", [[1], [2]], list[LogAnswer])


def test_request__error__is_refused_with_its_code_message_and_data(
    stranger: Stranger, endpoint: Endpoint
) -> None:
    error = {"code": -32000, "message": "no", "data": "0xabcd"}
    stranger.body = json.dumps({"id": 0, "result": None, "error": error}).encode()
    with pytest.raises(EndpointRefused, match="no") as caught:
        endpoint.request("eth_call")
    assert (caught.value.code, caught.value.data) == (-32000, b"\xab\xcd")


def test_request__http_error_or_redirect__is_an_unavailable_chain(
    stranger: Stranger, endpoint: Endpoint
) -> None:
    stranger.status = 503
    with pytest.raises(ChainUnavailable, match="503"):
        endpoint.request("eth_blockNumber")
    stranger.status = 302
    with pytest.raises(ChainUnavailable):
        endpoint.request("eth_blockNumber")
    assert len(stranger.asked) == 2


def test_request__endless_answer__is_not_read_to_its_end(
    stranger: Stranger, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.chain.rpc._MOST_BYTES", 1_000)
    stranger.body = b'{"result": "' + b"0" * 2_000 + b'"}'
    with pytest.raises(EndpointSlow, match="too many bytes"):
        endpoint.request("eth_blockNumber")


def test_batch__answers_in_another_order__are_put_in_order(
    stranger: Stranger, endpoint: Endpoint
) -> None:
    second = {"id": 1, "error": {"code": 1, "message": "too wide"}}
    stranger.body = json.dumps([second, {"id": 0, "result": "first"}]).encode()
    first, refused = endpoint.request_many("eth_getLogs", [[1], [2]], str)
    assert first == "first"
    assert isinstance(refused, EndpointRefused)
    assert [one["params"] for one in stranger.asked[0]] == [[1], [2]]


@pytest.mark.parametrize("places", [[0], [0, 0], [0, 2], [0, 1, 1], ["0", "1"], [None, None]])
def test_batch__answers_to_something_else__are_an_unavailable_chain(
    stranger: Stranger, endpoint: Endpoint, places: list[Any]
) -> None:
    stranger.body = json.dumps([{"id": place, "result": "x"} for place in places]).encode()
    with pytest.raises(ChainUnavailable, match="other requests"):
        endpoint.request_many("eth_getLogs", [[1], [2]], str)


@pytest.mark.parametrize("result", ["0x", None, 7, {"a": 1}, [7], [None], ["x"], [{}]])
def test_logs__that_are_none__are_an_unavailable_chain(
    stranger: Stranger, endpoint: Endpoint, result: Any
) -> None:
    stranger.body = json.dumps({"id": 0, "result": result}).encode()
    with pytest.raises(ChainUnavailable, match="nonsense to eth_getLogs"):
        list(LogReader(endpoint, ARENA).read(1, 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"blockNumber": "0x9"},
        {"blockNumber": "0x0"},
        {"logIndex": "0x1"},
        {"logIndex": "0x0"},
        {"logIndex": hex(1 << 70)},
    ],
)
def test_logs__of_other_blocks_twice_or_out_of_order__are_an_unavailable_chain(
    stranger: Stranger, endpoint: Endpoint, changes: dict[str, str]
) -> None:
    log = {
        "address": ARENA,
        "topics": ["0x" + DROPPED.hex(), WORD],
        "data": "0x",
        "blockNumber": "0x1",
        "blockHash": WORD,
        "logIndex": "0x1",
        "transactionHash": WORD,
    }
    stranger.body = json.dumps({"id": 0, "result": [log, log | {"logIndex": "0x2"}]}).encode()
    ((_, found),) = LogReader(endpoint, ARENA).read(1, 8)
    assert [one.log_index for one in found] == [1, 2]
    stranger.body = json.dumps(
        {"id": 0, "result": [log, log | {"logIndex": "0x2"} | changes]}
    ).encode()
    with pytest.raises(ChainUnavailable, match="nonsense to eth_getLogs"):
        list(LogReader(endpoint, ARENA).read(1, 8))


def test_read__next_range__is_asked_for_before_the_last_is_taken(
    stranger: Stranger, endpoint: Endpoint
) -> None:
    class Noticed(Endpoint):
        second = threading.Event()

        def send_many(self, method: str, calls: Any, kind: type[Any], on_sent: Any = None) -> Any:
            if any(params[0]["fromBlock"] == "0x2" for params in calls):
                self.second.set()
            return lambda: [list[LogAnswer]() for _ in calls]

    noticed = Noticed.connect(endpoint.url)
    reading = LogReader(noticed, ARENA, 1).read(1, 2)
    assert next(reading) == (1, [])
    assert noticed.second.wait(20)
    assert list(reading) == [(2, [])]


@pytest.mark.parametrize("calls", [[[1]], [[1], [2]]])
def test_send__endpoint_that_has_not_answered_yet__tells_that_it_has_the_request(
    stranger: Stranger, endpoint: Endpoint, calls: list[list[int]]
) -> None:
    answers = [{"id": place, "result": 7} for place in range(len(calls))]
    stranger.body = json.dumps(answers if len(answers) > 1 else answers[0]).encode()
    stranger.may_answer.clear()
    sent = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(endpoint.send_many, "eth_x", calls, int, sent.set)
        assert sent.wait(20)
        assert not asked.done()
        stranger.may_answer.set()
        assert asked.result()() == [7] * len(calls)


def test_read__endpoint_that_is_not_there__does_not_wait_for_a_request_to_be_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = Endpoint.connect(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ChainUnavailable, match="does not answer"):
            list(LogReader(nobody, ARENA).read(1, 8))


def test_read__dense_history__too_much_is_asked_for_only_once(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.chain.ranges._MANY_LOGS", 50)

    class Dense(Endpoint):
        def send_many(self, method: str, calls: Any, kind: type[Any], on_sent: Any = None) -> Any:
            return lambda: [
                [
                    LogAnswer(
                        address=ARENA,
                        topics=["0x" + DROPPED.hex(), WORD],
                        data="0x",
                        block_number=hex(block),
                        block_hash=WORD,
                        log_index=hex(place),
                        transaction_hash=WORD,
                    )
                    for block in range(int(asked["fromBlock"], 16), int(asked["toBlock"], 16) + 1)
                    for place in range(10)
                ]
                for (asked,) in calls
            ]

    dense = Dense.connect(endpoint.url)
    found = [len(logs) for _, logs in LogReader(dense, ARENA, 8).read(1, 400)]
    assert found == [80] + [40] * 98
