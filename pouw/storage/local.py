"""A folder of blocks: the default store, shared by any number of processes.

::

    DIRECTORY/blocks/<last two characters of the CID but one>/<CID>    one file a block
    DIRECTORY/pins/<CID>                                               one empty file a pin
    DIRECTORY/lock           shared by whoever writes, exclusive for the collection

A block appears under its CID only when it is whole and on the disk, and is never changed
afterwards, so readers need no lock. Nothing that is read here is trusted: every block is hashed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pouw.errors import ContentError, ContentMismatch, ContentNotFound
from pouw.files import TEMPORARY_SUFFIX, advice, atomic_file, sync, temporary_sibling
from pouw.hashing import raw_cid
from pouw.parallel import in_order
from pouw.storage.assemble import write_file
from pouw.storage.block import (
    LEAF_BYTES,
    check_block_size,
    cid_bytes,
    cid_of_bytes,
    is_raw,
    verify_block,
    within,
)
from pouw.storage.cid import FileLeaves, Leaves, Stored, hash_leaves
from pouw.storage.store import Store, copy, each_block, read_document
from pouw.storage.unixfs import Link, unique_blocks

GRACE_SECONDS: Final = 3600


class LocalStore:
    """``Store`` in a folder, made where it is missing; ContentError where that fails."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._blocks = directory / "blocks"
        self._blocks_text = str(self._blocks)
        self._pins = directory / "pins"
        self._thread = threading.local()
        with self._explained(f"cannot use {directory} as a store"):
            self._blocks.mkdir(parents=True, exist_ok=True)
            self._pins.mkdir(exist_ok=True)

    def check_writable(self) -> None:
        """ContentError where this process may not write here."""
        for folder in (self.directory, self._blocks, self._pins):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise ContentError(
                    f"{folder} cannot be written",
                    hint="check who owns the folder, or name another one with --store",
                )

    def path_of(self, cid: str) -> Path:
        """Where the block ``cid`` is or would be; ContentError where ``cid`` is not a CID."""
        cid_bytes(cid)
        return self._blocks / cid[-3:-1] / cid

    def put_block(self, cid: str, data: bytes) -> None:
        """Keep one block; ContentMismatch where ``data`` does not hash to ``cid``."""
        check_block_size(len(data), cid)
        verify_block(cid, data)
        with self._locked(fcntl.LOCK_SH):
            sync(self._write(cid, data))

    def get_block(self, cid: str) -> bytes:
        """The verified bytes of one block, at most 1 MiB."""
        return bytes(self.fetch(cid))

    def fetch(self, cid: str) -> memoryview:
        """As ``get_block``; the bytes hold until the same thread fetches again."""
        # Fresh memory for every block would cost more than reading it.
        if not hasattr(self._thread, "buffer"):
            self._thread.buffer = memoryview(bytearray(LEAF_BYTES + 1))
        buffer: memoryview = self._thread.buffer
        cid_bytes(cid)
        # Neither pathlib nor a file object: both cost more than opening a block that is cached.
        path = f"{self._blocks_text}/{cid[-3:-1]}/{cid}"
        with self._explained(f"cannot read block {cid}", cid):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.readv(descriptor, [buffer])
            finally:
                os.close(descriptor)
        try:
            return verify_block(cid, buffer[:size])
        except ContentMismatch as error:
            raise ContentMismatch(f"{error} ({path})", cid=cid, hint=error.hint) from error

    def put_bytes(self, data: bytes) -> str:
        """Keep ``data`` (at most 1 MiB: a document) as one raw block; its CID."""
        cid = cid_of_bytes(data)
        with self._locked(fcntl.LOCK_SH):
            sync(self._write(cid, data))
        return cid

    def get_bytes(self, cid: str, limit: int = LEAF_BYTES) -> bytes:
        """The content of one raw block of at most ``limit`` bytes, else ContentTooLarge."""
        return read_document(cid, limit, self.get_block)

    def put_file(self, path: Path) -> Stored:
        """Keep the file ``path``; the CID of its root and its size in bytes."""
        with FileLeaves(path) as source:
            return self.put_leaves(source)

    def put_leaves(self, source: Leaves) -> Stored:
        """Keep a file that is made leaf by leaf, in one pass; its root's CID and size."""
        folders: set[Path] = set()

        def leaf(data: memoryview) -> bytes:
            digest = hashlib.sha256(data).digest()
            folders.add(self._write(raw_cid(digest), data))
            return digest

        def node(cid: str, block: bytes) -> None:
            folders.add(self._write(cid, block))

        with self._locked(fcntl.LOCK_SH):
            stored = hash_leaves(source, leaf, node)
            for _ in in_order(sync, folders):
                pass
        return stored

    def take(self, cids: Iterable[str], source: Store) -> None:
        """Keep every block of the files or documents that ``source`` has, each root last.

        Blocks of another folder on the same file system become the same files: nothing is written.
        """
        if not isinstance(source, LocalStore):
            for cid in cids:
                copy(cid, source, self)
            return
        folders: set[Path] = set()

        def link(block: str) -> None:
            folders.add(self._write(block, source.fetch(block), source.path_of(block)))

        with self._locked(fcntl.LOCK_SH):
            for cid in cids:
                each_block(cid, source.get_block, link)
            for _ in in_order(sync, folders):
                pass

    def get_file(self, cid: str, destination: Path, size: int) -> None:
        """Write the file ``cid`` of exactly ``size`` bytes to ``destination``, whole or not."""
        write_file(cid, destination, size, self.fetch, waits=False)

    def has(self, cid: str) -> bool:
        """Whether every block of the file or document is here; leaves by length, not by hash."""
        try:
            cid_bytes(cid)
        except ContentError:
            return False  # one malformed reference must not stop whoever goes through many
        try:
            return all(self._present(link) for link in self._below(cid))
        except (ContentNotFound, ContentMismatch):
            return False

    def faults(self, cid: str) -> Iterator[ContentError]:
        """What is wrong with the file or document ``cid``: one error a missing or wrong block.

        ``error.cid`` is the block's CID; the message names its path, and the file where it is part
        of one. The walk ends at a wrong inner block: what hangs below it cannot be named.
        """

        def check(link: Link) -> ContentError | None:
            try:
                data = within(cid, self.get_block)(link.cid)
            except ContentError as error:
                return error
            if link.level == 0 and link.cid != cid and len(data) != link.size:
                return ContentMismatch(
                    f"block {link.cid} of {cid} is of another size", cid=link.cid
                )
            return None

        try:
            for error in in_order(check, self._below(cid)):
                if error is not None:
                    yield error
        except ContentError as error:
            yield error

    def verify(self, cid: str) -> None:
        """Hash every block of the file or document ``cid``; raises the first of its faults."""
        for error in self.faults(cid):
            raise error

    def pin(self, cid: str) -> None:
        """Keep the file or document until it is unpinned; ContentNotFound where it is not here."""
        cid_bytes(cid)
        with self._locked(fcntl.LOCK_SH):
            if not self.has(cid):
                raise ContentNotFound(
                    f"{cid} is not wholly in {self.directory}",
                    cid=cid,
                    hint="add or fetch it first",
                )
            with self._explained(f"cannot pin {cid}", cid):
                (self._pins / cid).touch()
                sync(self._pins)

    def unpin(self, cid: str) -> None:
        """Let the file or document go at the next collection; no error where it was not pinned."""
        cid_bytes(cid)
        with self._explained(f"cannot unpin {cid}", cid):
            (self._pins / cid).unlink(missing_ok=True)
            sync(self._pins)

    def pins(self) -> frozenset[str]:
        """The CIDs that are pinned."""
        with self._explained(f"cannot read {self._pins}"):
            return frozenset(entry.name for entry in self._pins.iterdir())

    def gc(self, grace_seconds: float = GRACE_SECONDS) -> int:
        """Remove the blocks that no pin reaches and nobody added lately; how many.

        ContentError, and nothing removed, where the tree of a pin cannot be followed.
        """
        removed = 0
        with self._locked(fcntl.LOCK_EX):
            kept: set[str] = set()
            for pin in self.pins():
                kept.add(pin)
                kept.update(link.cid for link in self._below(pin))
            limit = time.time() - grace_seconds
            with self._explained(f"cannot clean {self._blocks}"):
                for path in self._blocks.glob("*/*"):
                    if path.name not in kept and path.stat().st_mtime <= limit:
                        path.unlink()
                        removed += not path.name.endswith(TEMPORARY_SUFFIX)
        return removed

    def _below(self, cid: str) -> Iterator[Link]:
        """Every block of ``cid`` once, itself last; sizes of a lone raw block are not known."""
        if not is_raw(cid):
            yield from unique_blocks(cid, within(cid, self.get_block))
        yield Link(cid, 0, 0, 0)

    def _present(self, link: Link) -> bool:
        try:
            size = self.path_of(link.cid).stat().st_size
        except FileNotFoundError:
            return False
        return link.level > 0 or not link.size or size == link.size

    def _write(self, cid: str, data: bytes | memoryview, same: Path | None = None) -> Path:
        """Put the block in place, as the file ``same`` where it can be; the folder to flush."""
        path = self.path_of(cid)
        with self._explained(f"cannot keep block {cid}", cid):
            if self._holds(path, data) or (same is not None and _linked(same, path)):
                os.utime(path)  # for the collection it is as young as any other that was put now
            else:
                with atomic_file(path, sync_folder=False) as file:
                    file.write(data)
        return path.parent

    def _holds(self, path: Path, data: bytes | memoryview) -> bool:
        """Whether the block is there and sound; one that is not is written again."""
        try:
            return path.stat().st_size == len(data) and path.read_bytes() == bytes(data)
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        with self._explained(f"cannot lock {self.directory}"):
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _explained(self, what: str, cid: str | None = None) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ContentNotFound(
                f"{what}: {error.filename} is missing",
                cid=cid,
                hint="add or fetch the content again, or name another store",
            ) from error
        except OSError as error:
            raise ContentError(f"{what}: {error.strerror}", cid=cid, hint=advice(error)) from error


def _linked(same: Path, path: Path) -> bool:
    """Whether ``path`` is the file ``same`` now; not every file system has links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        os.link(same, temporary)
    except OSError:
        return False
    temporary.replace(path)
    return True
