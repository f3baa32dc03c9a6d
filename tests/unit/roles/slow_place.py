"""A place that makes whoever fetches from it wait."""

from __future__ import annotations

import threading
from pathlib import Path

from pouw.documents import Archive
from pouw.storage.local import LocalStore
from pouw.storage.unixfs import unique_blocks

BLOCKS = 6
PATIENCE_SECONDS = 20.0


class Slow(LocalStore):
    """A place that sends blocks of one file only once it may."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.slow: set[str] = set()
        self.asked = threading.Event()
        self.may_send = threading.Event()
        self.sent: list[str] = []

    def get_block(self, cid: str) -> bytes:
        if cid in self.slow:
            self.asked.set()
            assert self.may_send.wait(PATIENCE_SECONDS)
            self.sent.append(cid)
        return super().get_block(cid)

    def put_slow_archive(self, scratch: Path) -> Archive:
        """A file of ``BLOCKS`` blocks, which come once ``may_send`` is set."""
        scratch.write_bytes(b"".join(bytes([n]) * (1 << 20) for n in range(BLOCKS)))
        stored = self.put_file(scratch)
        self.slow = {link.cid for link in unique_blocks(stored.cid, self.get_block)}
        return Archive(cid=stored.cid, bytes=stored.bytes, cases=1)
