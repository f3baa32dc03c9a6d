"""What every place for content can do, and what needs no more than its blocks.

Blocks go in and out only after they hashed to their CID, so nobody has to trust a host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from pouw.errors import ContentMismatch, ContentTooLarge
from pouw.parallel import in_order
from pouw.storage.assemble import write_file
from pouw.storage.block import LEAF_BYTES, is_raw, within
from pouw.storage.cid import Leaves, Stored
from pouw.storage.unixfs import Fetch, unique_blocks

__all__ = [
    "Leaves",
    "Store",
    "Stored",
    "copy",
    "each_block",
    "read_document",
    "within",
    "write_file",
]


class Store(Protocol):
    """A place for content-addressed blocks; all methods raise ContentError and its kinds."""

    def put_block(self, cid: str, data: bytes) -> None:
        """Keep one block; ContentMismatch where ``data`` does not hash to ``cid``."""
        ...

    def get_block(self, cid: str) -> bytes:
        """The verified bytes of one block, at most 1 MiB."""
        ...

    def put_bytes(self, data: bytes) -> str:
        """Keep ``data`` (at most 1 MiB: a document) as one raw block; its CID."""
        ...

    def get_bytes(self, cid: str, limit: int = LEAF_BYTES) -> bytes:
        """The content of one raw block of at most ``limit`` bytes, else ContentTooLarge."""
        ...

    def put_file(self, path: Path) -> Stored:
        """Keep the file ``path``; the CID of its root and its size in bytes."""
        ...

    def put_leaves(self, source: Leaves) -> Stored:
        """Keep a file that is made leaf by leaf, in one pass; its root's CID and size."""
        ...

    def take(self, cids: Iterable[str], source: Store) -> None:
        """Keep every block of the files or documents that ``source`` has, each root last."""
        ...

    def get_file(self, cid: str, destination: Path, size: int) -> None:
        """Write the file ``cid`` of exactly ``size`` bytes to ``destination``, whole or not."""
        ...

    def has(self, cid: str) -> bool:
        """Whether every block of the file or document is here (not whether it is sound)."""
        ...

    def pin(self, cid: str) -> None:
        """Keep the file or document until it is unpinned; ContentNotFound where it is not here."""
        ...

    def unpin(self, cid: str) -> None:
        """Let the file or document go at the next collection; no error where it was not pinned."""
        ...

    def pins(self) -> frozenset[str]:
        """The CIDs that are pinned."""
        ...


def copy(cid: str, source: Store, destination: Store) -> None:
    """Bring every block of ``cid`` from ``source`` to ``destination``, the root last."""
    each_block(
        cid, source.get_block, lambda block: destination.put_block(block, source.get_block(block))
    )


def each_block(cid: str, fetch: Fetch, take: Callable[[str], None]) -> None:
    """Call ``take`` with every block of ``cid``, several at a time, the root last."""
    if not is_raw(cid):
        below = (link.cid for link in unique_blocks(cid, within(cid, fetch)))
        for _ in in_order(within(cid, take), below):
            pass
    take(cid)


def read_document(cid: str, limit: int, fetch: Fetch) -> bytes:
    """The content of the raw block ``cid`` of at most ``limit`` bytes."""
    if not is_raw(cid):
        raise ContentMismatch(
            f"{cid} is a file of many blocks, not a document",
            cid=cid,
            hint="documents are one raw block of at most 1 MiB",
        )
    data = bytes(fetch(cid))
    if len(data) > limit:
        raise ContentTooLarge(f"{cid} holds {len(data)} bytes, at most {limit} here", cid=cid)
    return data
