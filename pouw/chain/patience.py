"""A bound on how long a whole answer is waited for; HTTP libraries bound single silences only."""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ReadTimeoutError


class PatientAdapter(HTTPAdapter):
    """Waits so many seconds in all for an answer, head and body; a proxy's is not bounded."""

    def __init__(self, answer_seconds: float) -> None:
        self._answer_seconds = answer_seconds
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """As of any adapter, with connections of our own."""
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _bounded(HTTPConnectionPool, self._answer_seconds),
            "https": _bounded(HTTPSConnectionPool, self._answer_seconds),
        }


def in_time(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """``pieces``; requests takes a body that comes too slowly for a broken connection."""
    try:
        yield from pieces
    except requests.ConnectionError as error:
        if any(isinstance(cause, ReadTimeoutError) for cause in error.args):
            raise requests.Timeout(*error.args) from error
        raise


def _bounded(pool: type[HTTPConnectionPool], seconds: float) -> type[HTTPConnectionPool]:
    """The same pool, whose connections give an answer so many seconds."""
    made = {"response_class": staticmethod(_within(seconds))}
    connection = type("Connection", (pool.ConnectionCls,), made)
    return type("Pool", (pool,), {"ConnectionCls": connection})


def _within(seconds: float) -> Callable[..., http.client.HTTPResponse]:
    def made(sock: socket.socket, *arguments: Any, **named: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *arguments, **named)
        response.fp = io.BufferedReader(_Timed(response.fp.detach(), sock, seconds))
        return response

    return made


class _Timed(io.RawIOBase):
    """What a socket receives until it was waited for so long in all; then TimeoutError.

    What passes between two reads does not count: an answer may be taken up late.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, seconds: float) -> None:
        self._raw = raw
        self._sock = sock
        self._left_seconds = seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._left_seconds <= 0:
            raise TimeoutError("timed out")
        # Only close to the end: setting it costs a system call.
        if self._left_seconds < (self._sock.gettimeout() or 0.0):
            self._sock.settimeout(self._left_seconds)
        begun = time.monotonic()
        try:
            return self._raw.readinto(buffer)
        finally:
            self._left_seconds -= time.monotonic() - begun

    def close(self) -> None:
        self._raw.close()
        super().close()
