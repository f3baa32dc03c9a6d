"""CIDs of files under the profile ``unixfs-v1-2025``, computed in one pass in bounded memory.

CIDv1, sha2-256, leaves of 1 MiB as raw blocks, a balanced tree of width 1,024; a file of at most
one leaf, the empty one included, is that raw block itself. ``tests/unit/storage`` compares with
npm's ``ipfs-unixfs-importer`` around every boundary.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from pouw.errors import ContentError
from pouw.files import advice
from pouw.hashing import raw_cid
from pouw.parallel import computed_in_order, in_order
from pouw.storage.block import LEAF_BYTES, cid_of_bytes, verify_block
from pouw.storage.unixfs import WIDTH, Link, node_over

__all__ = [
    "LEAF_BYTES",
    "FileHasher",
    "FileLeaves",
    "Leaves",
    "Stored",
    "cid_of_bytes",
    "cid_of_file",
    "hash_leaves",
    "verify_block",
]


@dataclass(frozen=True, slots=True)
class Stored:
    """A file by its content: the root's CID and how many bytes the file has."""

    cid: str
    bytes: int


class FileHasher:
    """The root CID of a file that arrives piece by piece.

    ``on_node(cid, block)`` is called for every inner block once it is complete, the root last.
    Memory stays below 1,024 links a level, whatever the size of the file.
    """

    def __init__(self, on_node: Callable[[str, bytes], None] | None = None) -> None:
        self._on_node = on_node
        self._levels: list[list[Link]] = [[]]
        self._leaf = hashlib.sha256()
        self._leaf_size = 0
        self._size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes of the file, however they are cut."""
        view = memoryview(data).cast("B")
        if self._size % LEAF_BYTES:
            raise ValueError("a short leaf was the file's last")
        while len(view):
            part = view[: LEAF_BYTES - self._leaf_size]
            self._leaf.update(part)
            self._leaf_size += len(part)
            if self._leaf_size == LEAF_BYTES:
                self._end_leaf()
            view = view[len(part) :]

    def add_leaf(self, digest: bytes, size: int) -> None:
        """Take the next leaf by the digest of its bytes; only the file's last may be short."""
        if self._leaf_size or self._size % LEAF_BYTES or not 0 < size <= LEAF_BYTES:
            raise ValueError(f"a leaf of {size} bytes at {self._size + self._leaf_size}")
        self._add(Link(raw_cid(digest), size, size, 0))
        self._size += size

    def finish(self) -> Stored:
        """The file's root CID and size, once all its bytes were given."""
        if self._leaf_size or not self._size:
            self._end_leaf()
        level = 0
        while level + 1 < len(self._levels) or len(self._levels[level]) > 1:
            if self._levels[level]:
                self._reduce(level)
            level += 1
        return Stored(self._levels[level][0].cid, self._size)

    def _end_leaf(self) -> None:
        link = Link(raw_cid(self._leaf.digest()), self._leaf_size, self._leaf_size, 0)
        self._size += self._leaf_size
        self._leaf, self._leaf_size = hashlib.sha256(), 0
        self._add(link)

    def _add(self, link: Link) -> None:
        if link.level == len(self._levels):
            self._levels.append([])
        self._levels[link.level].append(link)
        if len(self._levels[link.level]) == WIDTH:
            self._reduce(link.level)

    def _reduce(self, level: int) -> None:
        link, block = node_over(tuple(self._levels[level]))
        self._levels[level] = []
        if self._on_node is not None:
            self._on_node(link.cid, block)
        self._add(link)


class Leaves(Protocol):
    """A file by its leaves, any of them at any time and in any thread."""

    @property
    def bytes(self) -> int:
        """The size of the file."""
        ...

    def leaf(self, index: int) -> memoryview:
        """The bytes of leaf ``index``; they hold until the same thread asks for its next."""
        ...

    def finish(self) -> None:
        """Raises where what the leaves were made of has changed since the first."""
        ...


class FileLeaves:
    """``Leaves`` of a file on disk; ContentError where it cannot be read or changes meanwhile.

    Use it in a ``with`` statement.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.local()
        with self._explained():
            self._file = path.open("rb", buffering=0)
            self._state = self._look()
        self.bytes = self._state[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def leaf(self, index: int) -> memoryview:
        """As ``Leaves.leaf``."""
        offset = index * LEAF_BYTES
        view = self._buffer()[: min(LEAF_BYTES, self.bytes - offset)]
        with self._explained():
            if os.preadv(self._file.fileno(), [view], offset) != len(view):
                raise self._changed()
        return view

    def finish(self) -> None:
        """As ``Leaves.finish``."""
        if self._look() != self._state:
            raise self._changed()

    def _look(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def _buffer(self) -> memoryview:
        # Fresh memory for every leaf would cost more than reading it.
        if not hasattr(self._thread, "buffer"):
            self._thread.buffer = memoryview(bytearray(LEAF_BYTES))
        buffer: memoryview = self._thread.buffer
        return buffer

    def _changed(self) -> ContentError:
        return ContentError(
            f"{self._path} changed while it was read",
            hint="add it again once nothing writes to it any more",
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ContentError(
                f"cannot read {self._path}: {error.strerror}", hint=advice(error)
            ) from error


def hash_leaves(
    source: Leaves,
    on_leaf: Callable[[memoryview], bytes],
    on_node: Callable[[str, bytes], None] | None = None,
    *,
    waits: bool = True,
) -> Stored:
    """The root CID of the file ``source``, its leaves taken by several threads at a time.

    ``on_leaf`` gets the bytes of a leaf, which hold until it returns, and returns their sha2-256
    digest; ``waits`` says whether it does more than compute.
    """
    hasher, size = FileHasher(on_node), source.bytes

    def take(index: int) -> tuple[bytes, int]:
        data = source.leaf(index)
        return on_leaf(data), len(data)

    each = in_order if waits else computed_in_order
    for digest, length in each(take, range(max(1, -(-size // LEAF_BYTES)))):
        if length:
            hasher.add_leaf(digest, length)
    source.finish()
    return hasher.finish()


def cid_of_file(path: Path) -> str:
    """The root CID of the file ``path``; ContentError where it cannot be read."""
    with FileLeaves(path) as source:
        return hash_leaves(source, lambda data: hashlib.sha256(data).digest(), waits=False).cid
