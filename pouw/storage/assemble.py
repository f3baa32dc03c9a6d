"""Files put together from verified leaves, several at a time, and taken up again after a kill."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from pouw.errors import ContentError, ContentMisdeclared, ContentTooLarge
from pouw.files import advice, partial_file, write_at
from pouw.hashing import sha256
from pouw.parallel import computed_in_order, in_order
from pouw.storage.block import LEAF_BYTES, digest_of, within
from pouw.storage.unixfs import Fetch, Link, leaves


def write_file(
    cid: str,
    destination: Path,
    size: int,
    fetch: Fetch,
    *,
    waits: bool = True,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fetch the file ``cid`` of exactly ``size`` bytes and give it the name ``destination``.

    ``fetch`` returns verified blocks, whose bytes hold until the same thread fetches its next;
    ``waits`` says whether it asks somebody for them.
    Only bytes of verified blocks are written, and never more than ``size``; the name appears when
    the last of them is on the disk. With ``resume``, leaves that an attempt before this one left
    behind are hashed instead of fetched; without, an error leaves nothing. ``progress`` is called
    with the bytes of every leaf done, from several threads.
    """
    named = within(cid, fetch)
    discard_after = () if resume else BaseException
    try:
        with partial_file(destination, size, discard_after) as descriptor:
            partial = _Partial(descriptor)

            def bring(item: tuple[int, Link]) -> None:
                index, link = item
                if not partial.holds(index, link):
                    data = named(link.cid)
                    _check_size(cid, link, len(data), size)
                    write_at(descriptor, data, index * LEAF_BYTES)
                if progress is not None:
                    progress(link.size)

            each = in_order if waits else computed_in_order
            for _ in each(bring, enumerate(leaves(cid, size, named))):
                pass
    except OSError as error:
        raise ContentError(
            f"cannot write {destination}: {error.strerror}", cid=cid, hint=advice(error)
        ) from error


class _Partial:
    """What an earlier attempt left in a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._thread = threading.local()

    def holds(self, index: int, link: Link) -> bool:
        """Whether leaf ``index`` is there: its bytes hash to its CID."""
        offset = index * LEAF_BYTES
        if offset + link.size > self._size:
            return False
        if not hasattr(self._thread, "buffer"):
            self._thread.buffer = memoryview(bytearray(LEAF_BYTES))
        view = self._thread.buffer[: link.size]
        read = os.preadv(self._descriptor, [view], offset)
        return read == link.size and sha256(view) == digest_of(link.cid)


def _check_size(cid: str, link: Link, found: int, declared: int) -> None:
    if found != link.size:
        more = link.cid == cid and found > declared
        raise (ContentTooLarge if more else ContentMisdeclared)(
            f"block {link.cid} of {cid} has {found} bytes, {link.size} were declared",
            cid=link.cid,
            hint="the declared size and the content do not belong together",
        )
