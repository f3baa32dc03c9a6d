"""Opening sealed files: any chunk, or all of them."""

from __future__ import annotations

import contextlib
import hmac
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag

from pouw.errors import SealError
from pouw.files import partial_file, write_at
from pouw.parallel import computed_in_order
from pouw.sealing.keys import check_key
from pouw.sealing.layout import (
    CHUNK_BYTES,
    HEADER_BYTES,
    TAG_BYTES,
    Chunks,
    Header,
    Place,
    changed,
    explained,
)

OnBytes = Callable[[int], None]
"""Called with the number of plaintext bytes done since the call before."""


class SealedReader:
    """Random access to the chunks of a sealed file, from any number of threads.

    WrongKey where ``key`` does not hash to ``key_hash``, the keccak-256 that was committed to;
    SealError where ``path`` is not a whole sealed file. Use it in a ``with`` statement.
    """

    def __init__(self, path: Path, key: bytes, key_hash: bytes) -> None:
        check_key(key, key_hash)
        self._path = path
        with contextlib.ExitStack() as stack, explained(path):
            self._file = stack.enter_context(path.open("rb", buffering=0))
            self._header = Header.parse(path, self._file.read(HEADER_BYTES))
            size, expected = os.fstat(self._file.fileno()).st_size, self._header.sealed_bytes
            if size != expected:
                raise SealError(
                    f"{path} has {size} bytes, its header announces {expected}: "
                    f"{'truncated' if size < expected else 'extended'}",
                    hint="fetch it again",
                )
            stack.pop_all()
        self._chunks = Chunks(self._header, key)
        self._thread = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def chunks(self) -> int:
        """How many chunks there are, at least one."""
        return self._header.chunks

    @property
    def plaintext_bytes(self) -> int:
        """The length of the plaintext."""
        return self._header.length

    def place(self, index: int) -> Place:
        """Where chunk ``index`` (from 0) is."""
        if not 0 <= index < self.chunks:
            raise IndexError(f"chunk {index} of {self.chunks}")
        return self._header.place(index)

    def read_chunk(self, index: int) -> bytes:
        """The authentic plaintext of chunk ``index`` (from 0); SealError where it is not."""
        with self.chunk(index) as view:
            return bytes(view)

    @contextlib.contextmanager
    def chunk(self, index: int) -> Iterator[memoryview]:
        """As ``read_chunk`` without a copy: a view for this thread that holds in the block."""
        place, data = self.place(index), self._buffer()
        self._read(self._file.fileno(), data[: place.size + TAG_BYTES], place.sealed)
        tag = bytes(data[place.size : place.size + TAG_BYTES])
        try:
            self._chunks.decrypt(index, data, place.size, tag)
        except InvalidTag as error:
            raise SealError(
                f"chunk {index} of {self._path} does not open: another key, or altered bytes",
                hint="check that key and file belong together, and fetch the file again",
            ) from error
        with data[: place.size].toreadonly() as view:
            yield view

    def holds(self, index: int, descriptor: int) -> bool:
        """Whether the plaintext of chunk ``index`` lies at its place in the file ``descriptor``.

        It does where sealing it again gives the chunk's tag: nothing else is read.
        """
        place, data = self.place(index), self._buffer()
        tag = memoryview(bytearray(TAG_BYTES))
        self._read(descriptor, data[: place.size], place.plain)
        self._read(self._file.fileno(), tag, place.sealed + place.size)
        return hmac.compare_digest(self._chunks.encrypt(index, data, place.size), tag)

    def _read(self, descriptor: int, view: memoryview, offset: int) -> None:
        with explained(self._path):
            if os.preadv(descriptor, [view], offset) != len(view):
                raise changed(self._path)

    def _buffer(self) -> memoryview:
        # Fresh memory for every chunk would cost more than decrypting it.
        if not hasattr(self._thread, "buffer"):
            self._thread.buffer = memoryview(bytearray(CHUNK_BYTES + TAG_BYTES))
        buffer: memoryview = self._thread.buffer
        return buffer


def open_file(
    source: Path,
    destination: Path,
    key: bytes,
    key_hash: bytes,
    on_bytes: OnBytes | None = None,
) -> None:
    """Open the sealed file ``source`` as ``destination``, which appears when all was authentic.

    After a kill the next call keeps the chunks that are there already. WrongKey where ``key`` does
    not hash to ``key_hash``; SealError, and nothing left, where the file is not a sealed one, was
    changed in any way, or was sealed under another key.
    """
    with (
        SealedReader(source, key, key_hash) as reader,
        explained(source, destination),
        partial_file(destination, reader.plaintext_bytes, SealError) as plain,
    ):
        there = os.fstat(plain).st_size

        def open_chunk(index: int) -> int:
            place = reader.place(index)
            if place.plain + place.size > there or not reader.holds(index, plain):
                with reader.chunk(index) as view:
                    write_at(plain, view, place.plain)
            return place.size

        for size in computed_in_order(open_chunk, range(reader.chunks)):
            if on_bytes is not None:
                on_bytes(size)
