"""What stores behind a network share: everything that follows from single blocks."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pouw.errors import ContentError
from pouw.hashing import raw_cid
from pouw.parallel import in_order
from pouw.storage.assemble import write_file
from pouw.storage.block import LEAF_BYTES, cid_of_bytes, is_raw
from pouw.storage.cid import FileLeaves, Leaves, Stored, hash_leaves
from pouw.storage.store import Store, copy, read_document
from pouw.storage.unixfs import unique_blocks


class NetworkStore(ABC):
    """``Store`` in terms of single blocks; ``name`` is what a user called the place."""

    name: str

    def __str__(self) -> str:
        return self.name

    @abstractmethod
    def until(self, ending: threading.Event) -> Self:
        """The same place, which is not waited for any longer once ``ending`` is set."""

    @abstractmethod
    def put_block(self, cid: str, data: bytes) -> None:
        """Keep one block; ContentMismatch where ``data`` does not hash to ``cid``."""

    @abstractmethod
    def get_block(self, cid: str) -> bytes:
        """The verified bytes of one block, at most 1 MiB."""

    def fetch(self, cid: str) -> bytes | memoryview:
        """As ``get_block``; the bytes hold until the same thread fetches again."""
        return self.get_block(cid)

    @abstractmethod
    def pin(self, cid: str) -> None:
        """Keep the file or document until it is unpinned; ContentNotFound where it is not here."""

    @abstractmethod
    def unpin(self, cid: str) -> None:
        """Let the file or document go at the next collection; no error where it was not pinned."""

    @abstractmethod
    def pins(self) -> frozenset[str]:
        """The CIDs that are pinned."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections; a store that is used again opens new ones."""

    @abstractmethod
    def has_block(self, cid: str) -> bool:
        """Whether the place says that it has the block; nothing is verified."""

    def put_bytes(self, data: bytes) -> str:
        """Keep ``data`` (at most 1 MiB: a document) as one raw block; its CID."""
        cid = cid_of_bytes(data)
        self.put_block(cid, data)
        return cid

    def get_bytes(self, cid: str, limit: int = LEAF_BYTES) -> bytes:
        """The content of one raw block of at most ``limit`` bytes, else ContentTooLarge."""
        return read_document(cid, limit, self.get_block)

    def put_file(self, path: Path) -> Stored:
        """Keep the file ``path``, its root last; the root's CID and the size in bytes."""
        with FileLeaves(path) as source:
            return self.put_leaves(source)

    def put_leaves(self, source: Leaves) -> Stored:
        """Keep a file that is made leaf by leaf, in one pass; its root's CID and size."""

        def leaf(data: memoryview) -> bytes:
            digest = hashlib.sha256(data).digest()
            self.put_block(raw_cid(digest), bytes(data))
            return digest

        return hash_leaves(source, leaf, self.put_block)

    def take(self, cids: Iterable[str], source: Store) -> None:
        """Keep every block of the files or documents that ``source`` has, each root last."""
        for cid in cids:
            copy(cid, source, self)

    def get_file(self, cid: str, destination: Path, size: int) -> None:
        """Write the file ``cid`` of exactly ``size`` bytes to ``destination``, whole or not.

        What an earlier call brought before it was interrupted is hashed and not fetched again.
        """
        write_file(cid, destination, size, self.fetch, resume=True)

    def has(self, cid: str) -> bool:
        """Whether every block of the file or document is here (not whether it is sound)."""
        try:
            # The root is put last, so where it lacks nothing else needs to be asked for.
            if not self.has_block(cid):
                return False
            if is_raw(cid):
                return True
            below = (link.cid for link in unique_blocks(cid, self.get_block))
            return all(in_order(self.has_block, below))
        except ContentError:
            return False
