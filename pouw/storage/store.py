"""What every place for content can do, and what needs no more than its blocks.

Blocks go in and out only after they hashed to their CID, so nobody has to trust a host.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from pouw.errors import ContentError, ContentMismatch, ContentTooLarge
from pouw.files import advice, atomic_file
from pouw.storage.block import LEAF_BYTES, is_raw
from pouw.storage.cid import Stored
from pouw.storage.parallel import in_order
from pouw.storage.unixfs import Fetch, Link, leaves, unique_blocks

__all__ = ["Store", "Stored", "copy", "read_document", "within", "write_file"]

Result = TypeVar("Result")


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

    def bring(block: str) -> None:
        destination.put_block(block, source.get_block(block))

    if not is_raw(cid):
        below = (link.cid for link in unique_blocks(cid, within(cid, source.get_block)))
        for _ in in_order(within(cid, bring), below):
            pass
    bring(cid)


def write_file(cid: str, destination: Path, size: int, fetch: Fetch) -> None:
    """Fetch the file ``cid`` of exactly ``size`` bytes and give it the name ``destination``.

    ``fetch`` returns verified blocks. Only bytes of verified blocks are written, and never more
    than ``size``; the name appears when the last of them is on the disk.
    """
    fetch = within(cid, fetch)

    def leaf(link: Link) -> bytes:
        data = fetch(link.cid)
        if len(data) != link.size:
            more = link.cid == cid and len(data) > size
            raise (ContentTooLarge if more else ContentMismatch)(
                f"block {link.cid} of {cid} has {len(data)} bytes, {link.size} were declared",
                cid=link.cid,
                hint="the declared size and the content do not belong together",
            )
        return data

    try:
        with atomic_file(destination) as file:
            for data in in_order(leaf, leaves(cid, size, fetch)):
                file.write(data)
    except OSError as error:
        raise ContentError(
            f"cannot write {destination}: {error.strerror}", cid=cid, hint=advice(error)
        ) from error


def read_document(cid: str, limit: int, fetch: Fetch) -> bytes:
    """The content of the raw block ``cid`` of at most ``limit`` bytes."""
    if not is_raw(cid):
        raise ContentMismatch(
            f"{cid} is a file of many blocks, not a document",
            cid=cid,
            hint="documents are one raw block of at most 1 MiB",
        )
    data = fetch(cid)
    if len(data) > limit:
        raise ContentTooLarge(f"{cid} holds {len(data)} bytes, at most {limit} here", cid=cid)
    return data


def within(root: str, call: Callable[[str], Result]) -> Callable[[str], Result]:
    """``call``, its errors about a block naming the file ``root`` as well."""

    def named(cid: str) -> Result:
        try:
            return call(cid)
        except ContentError as error:
            if cid == root or error.cid != cid:
                raise
            raise type(error)(f"{error} (in file {root})", cid=cid, hint=error.hint) from error

    return named
