"""An endpoint that sends a byte now and then: no silence is long, the whole answer is."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pouw.chain.rpc import Endpoint, EndpointSlow

BODY = json.dumps({"jsonrpc": "2.0", "id": 0, "result": "0x1"}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
TIMEOUT_SECONDS = 0.4


class Trickler:
    """Answers with all at once up to ``quick`` bytes, then with a byte each ``pause`` seconds."""

    def __init__(self, listener: socket.socket, quick: int, pause: float) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.requests = 0
        self._listener, self._quick, self._pause = listener, quick, pause

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        try:
            while request := connection.recv(1 << 16):
                if not request.endswith(b"}"):  # the head may come before the body
                    continue
                self.requests += 1
                answer = HEAD + BODY
                connection.sendall(answer[: self._quick])
                for byte in answer[self._quick :]:
                    time.sleep(self._pause)
                    connection.sendall(bytes([byte]))
        except OSError:
            return


@contextmanager
def trickling(quick: int, pause: float) -> Iterator[Trickler]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        trickler = Trickler(listener, quick, pause)
        threading.Thread(target=trickler.serve, daemon=True).start()
        yield trickler
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("quick", [0, len(HEAD)])
def test_request__answer_comes_byte_by_byte__is_given_up_in_time(quick: int) -> None:
    with trickling(quick, 0.1) as trickler:
        endpoint = Endpoint.connect(trickler.url, TIMEOUT_SECONDS)
        begun = time.monotonic()

        with pytest.raises(EndpointSlow, match="in time"):
            endpoint.block_number()

        assert time.monotonic() - begun < 4 * TIMEOUT_SECONDS
        endpoint.close()
    assert trickler.requests == 1


def test_request__answer_comes_in_pieces_within_the_time__is_read() -> None:
    with trickling(len(HEAD) + len(BODY) - 2, 0.1) as trickler:
        endpoint = Endpoint.connect(trickler.url, TIMEOUT_SECONDS)

        assert [endpoint.block_number() for _ in range(8)] == [1] * 8

        endpoint.close()
    assert trickler.requests == 8


def test_request__answer_is_read_long_after_it_came__is_not_late() -> None:
    with trickling(len(HEAD) + len(BODY), 0.0) as trickler:
        endpoint = Endpoint.connect(trickler.url, TIMEOUT_SECONDS)
        answer = endpoint.send_many("eth_blockNumber", [[]], str)

        time.sleep(4 * TIMEOUT_SECONDS)

        assert answer() == ["0x1"]
        endpoint.close()
