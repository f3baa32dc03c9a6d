"""CIDs of files under the profile ``unixfs-v1-2025``, computed in one pass in bounded memory.

CIDv1, sha2-256, leaves of 1 MiB as raw blocks, a balanced tree of width 1,024; a file of at most
one leaf, the empty one included, is that raw block itself. ``tests/unit/storage`` compares with
npm's ``ipfs-unixfs-importer`` around every boundary.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pouw.errors import ContentError
from pouw.files import advice
from pouw.hashing import raw_cid
from pouw.storage.block import LEAF_BYTES, cid_of_bytes, verify_block
from pouw.storage.parallel import in_order
from pouw.storage.unixfs import WIDTH, Link, node_over

__all__ = [
    "LEAF_BYTES",
    "FileHasher",
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


def hash_leaves(
    path: Path,
    on_leaf: Callable[[bytes], bytes],
    on_node: Callable[[str, bytes], None] | None = None,
) -> Stored:
    """The root CID of the file ``path``, its leaves taken by several threads at a time.

    ``on_leaf`` gets the bytes of a leaf and returns their sha2-256 digest. ContentError where the
    file cannot be read or changes meanwhile.
    """
    hasher = FileHasher(on_node)
    try:
        with path.open("rb", buffering=0) as file:
            descriptor = file.fileno()
            size = os.fstat(descriptor).st_size

            def take(offset: int) -> tuple[bytes, int]:
                data = os.pread(descriptor, LEAF_BYTES, offset)
                if len(data) != min(LEAF_BYTES, size - offset):
                    raise ContentError(
                        f"{path} changed while it was read",
                        hint="add it again once nothing writes to it any more",
                    )
                return on_leaf(data), len(data)

            for digest, length in in_order(take, range(0, size, LEAF_BYTES)):
                hasher.add_leaf(digest, length)
            if not size:
                on_leaf(b"")
            if os.fstat(descriptor).st_size != size:
                raise ContentError(
                    f"{path} changed while it was read",
                    hint="add it again once nothing writes to it any more",
                )
    except OSError as error:
        raise ContentError(f"cannot read {path}: {error.strerror}", hint=advice(error)) from error
    return hasher.finish()


def cid_of_file(path: Path) -> str:
    """The root CID of the file ``path``; ContentError where it cannot be read."""
    return hash_leaves(path, lambda data: hashlib.sha256(data).digest()).cid
