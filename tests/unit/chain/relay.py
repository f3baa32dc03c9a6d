"""An endpoint before a real node that refuses transactions for reasons of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests


class Relay:
    """Passes everything on, but raw transactions while ``refusal`` says why not."""

    def __init__(self) -> None:
        self.url = ""
        self.refusal: str | None = None

    def refused(self, body: bytes) -> bytes | None:
        """The answer to what is refused; None where it is passed on."""
        if self.refusal is None or b'"eth_sendRawTransaction"' not in body:
            return None
        error = {"code": -32000, "message": self.refusal}
        return json.dumps({"jsonrpc": "2.0", "id": 0, "error": error}).encode()


@contextmanager
def relay_to(url: str) -> Iterator[Relay]:
    """A relay to the node at ``url`` while the context lasts."""
    relay, session = Relay(), requests.Session()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {"Content-Type": "application/json"}
            answer = relay.refused(body) or session.post(url, data=body, headers=headers).content
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    relay.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        session.close()
