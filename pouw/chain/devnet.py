"""`pouw devnet`: the embedded chain behind a JSON-RPC front on the loopback interface.

A standard-library server with a thread for each connection and one lock around the chain; any
Ethereum client in any process can talk to it. It holds no keys: clients sign.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from pouw.chain.devchain import DevChain
from pouw.chain.methods import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    Methods,
    RpcError,
)
from pouw.errors import ChainError, ConfigError

_LOG: Final = logging.getLogger(__name__)
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_MAX_REQUEST_BYTES: Final = 1 << 20
_MAX_BATCH: Final = 256
_IDLE_SECONDS: Final = 120


class Devnet:
    """A running chain; ``port`` 0 takes a free one, ``block_seconds`` 0 closes a block at once.

    With ``block_seconds`` above 0 a block is closed, empty or not, about that often (not more
    often than once a second: a timestamp is a whole second).
    """

    def __init__(
        self,
        directory: Path,
        host: str = "127.0.0.1",
        port: int = 8545,
        block_seconds: float = 1.0,
    ) -> None:
        if host not in _LOOPBACK:
            raise ConfigError(
                f"pouw devnet listens on the loopback interface only, not on {host}",
                hint="its accounts are public; use a tunnel to reach it from elsewhere",
            )
        if block_seconds != 0 and block_seconds < 1:
            raise ConfigError("blocks are at least a second apart (or 0: one a transaction)")
        self._block_seconds = block_seconds
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._closed = False
        self._failure: ChainError | None = None
        self._threads: list[threading.Thread] = []
        self.chain = DevChain(directory, automine=block_seconds == 0)
        self._methods = Methods(self.chain)
        family = socket.AF_INET6 if host == "::1" else socket.AF_INET
        try:
            self._server = _Server((host, port), _handler_for(self), family)
        except OSError as error:
            self.chain.close()
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint="another chain may run there; choose another --port",
            ) from error

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where clients find it."""
        host = str(self._server.server_address[0])
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self) -> None:
        """Serve from background threads; returns at once."""
        targets = [self._serve] if self._block_seconds == 0 else [self._serve, self._tick]
        for target in targets:
            thread = threading.Thread(target=target, name=f"devnet{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop serving, close the block being built, let go of port and file."""
        self._stopped.set()
        if self._threads:
            self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._server.server_close()
        with self._lock:
            if not self._closed:
                self._closed = True
                self.chain.close()

    def serve_forever(self) -> None:
        """Serve until ``stop`` or an interrupt; ChainError where the chain cannot go on."""
        self.start()
        try:
            self._stopped.wait()
        finally:
            self.stop()
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """Let ``serve_forever`` return; from any thread."""
        self._stopped.set()

    def advance(self, seconds: int) -> None:
        """Put the clock forward and close a block there, for tests."""
        with self._lock:
            self.chain.increase_time(seconds)
            self.chain.mine()

    def __enter__(self) -> Devnet:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.5)

    def _tick(self) -> None:
        """Close blocks right after the turn of a second."""
        due = time.time() + self._block_seconds
        while True:
            pause = max(due, int(time.time()) + 1) - time.time()
            if self._stopped.wait(pause + 0.002):
                return
            due = max(due + self._block_seconds, time.time())
            try:
                with self._lock:
                    self.chain.tick()
            except ChainError as error:
                self._failure = error
                self._stopped.set()
                return

    def respond(self, body: bytes) -> bytes:
        """The JSON-RPC answer, single or batch, to a request's body."""
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            return json.dumps(_failed(None, RpcError(PARSE_ERROR, "not JSON"))).encode()
        if not isinstance(request, list):
            return json.dumps(self._answer(request)).encode()
        if not 0 < len(request) <= _MAX_BATCH:
            error = RpcError(INVALID_REQUEST, f"a batch holds 1 to {_MAX_BATCH} requests")
            return json.dumps(_failed(None, error)).encode()
        return json.dumps([self._answer(item) for item in request]).encode()

    def _answer(self, request: Any) -> dict[str, Any]:
        identity = request.get("id") if isinstance(request, dict) else None
        try:
            method, params = _parts(request)
            with self._lock:
                if self._closed:
                    # A connection that outlived the chain: dropped, so that its client comes anew.
                    raise ConnectionAbortedError
                result = self._methods.answer(method, params)
        except RpcError as error:
            return _failed(identity, error)
        except ChainError as error:
            _LOG.exception("the chain cannot go on")
            self._failure = error
            self._stopped.set()
            return _failed(identity, RpcError(INTERNAL_ERROR, str(error)))
        return {"jsonrpc": "2.0", "id": identity, "result": result}


def _parts(request: Any) -> tuple[str, list[Any]]:
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        raise RpcError(INVALID_REQUEST, "not a JSON-RPC request")
    params = request.get("params") or []
    if not isinstance(params, list):
        raise RpcError(INVALID_PARAMS, "parameters are given by position")
    return request["method"], params


def _failed(identity: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "error": error.form()}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        family: socket.AddressFamily,
    ) -> None:
        self.address_family = family
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # HTTPServer would look up its own name, which may ask the network.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            _LOG.debug("a client went away")
        else:
            _LOG.exception("a request failed")


def _handler_for(devnet: Devnet) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = _IDLE_SECONDS
        wbufsize = -1

        def do_POST(self) -> None:
            if not self._is_local():
                self._refuse(403, "this chain answers local clients only")
                return
            try:
                length = int(self.headers.get("Content-Length", ""))
            except ValueError:
                self._refuse(411, "a Content-Length is required")
                return
            if not 0 <= length <= _MAX_REQUEST_BYTES:
                self._refuse(413, f"at most {_MAX_REQUEST_BYTES} bytes")
                return
            self._send(200, devnet.respond(self.rfile.read(length)))

        def do_GET(self) -> None:
            self._refuse(405, "POST JSON-RPC requests")

        def _is_local(self) -> bool:
            """Whether the page that asks is no stranger's (DNS rebinding, cross-site posts)."""
            host = self.headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
            return host in _LOOPBACK and "Origin" not in self.headers

        def _refuse(self, status: int, message: str) -> None:
            self.close_connection = True
            self._send(status, json.dumps({"error": message}).encode())
            self._drain()

        def _drain(self) -> None:
            """Take in, bounded, what the client still sends: else it may never read the answer."""
            left = 8 * _MAX_REQUEST_BYTES
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_WR)
                self.connection.settimeout(1.0)
                while left > 0 and (piece := self.connection.recv(1 << 16)):
                    left -= len(piece)

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            _LOG.debug(format, *args)

    return Handler
