"""Sealing: a plain file as the leaves of a sealed one."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pouw.sealing.layout import (
    CHUNK_BYTES,
    HEADER_BYTES,
    TAG_BYTES,
    Chunks,
    Header,
    changed,
    check_length,
    explained,
)


class Sealing:
    """The sealed form of the file ``source``, made leaf by leaf as somebody asks for them.

    It is what ``put_leaves`` of a store takes. Several threads may ask, each leaf can be had once,
    and every ``Sealing`` draws a salt of its own: no IV ever serves two plaintexts. SealError where
    ``source`` cannot be read or changes meanwhile. ``on_bytes`` is called with the plaintext bytes
    of every leaf made, one call at a time. Use it in a ``with`` statement.
    """

    def __init__(
        self, source: Path, key: bytes, on_bytes: Callable[[int], None] | None = None
    ) -> None:
        check_length(key)
        self._path = source
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        with explained(source):
            self._file = source.open("rb", buffering=0)
            self._state = self._look()
        self._header = Header(self._state[0], secrets.token_bytes(32))
        self._chunks = Chunks(self._header, key)
        self._given: set[int] = set()
        self._thread = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def bytes(self) -> int:
        """The size of the sealed file."""
        return self._header.sealed_bytes

    @property
    def leaves(self) -> int:
        """How many leaves it has: one a chunk."""
        return self._header.chunks

    def leaf(self, index: int) -> memoryview:
        """The bytes of leaf ``index``; they hold until the same thread asks for its next."""
        with self._lock:
            if index in self._given or not 0 <= index < self.leaves:
                raise ValueError(f"leaf {index} of {self.leaves} was given, or does not exist")
            self._given.add(index)
        leaf, place = self._buffer(), self._header.place(index)
        start = 0
        if index == 0:
            leaf[:HEADER_BYTES] = self._header.encode()
            start = HEADER_BYTES
        end = start + place.size
        with explained(self._path):
            if os.preadv(self._file.fileno(), [leaf[start:end]], place.plain) != place.size:
                raise changed(self._path)
        leaf[end : end + TAG_BYTES] = self._chunks.encrypt(index, leaf[start:], place.size)
        if self._on_bytes is not None:
            with self._lock:
                self._on_bytes(place.size)
        return leaf[: end + TAG_BYTES]

    def finish(self) -> None:
        """SealError where the source has changed since the first leaf."""
        with explained(self._path):
            if self._look() != self._state:
                raise changed(self._path)

    def _look(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def _buffer(self) -> memoryview:
        # Fresh memory for every leaf would cost more than encrypting it.
        if not hasattr(self._thread, "buffer"):
            self._thread.buffer = memoryview(bytearray(CHUNK_BYTES))
        buffer: memoryview = self._thread.buffer
        return buffer
