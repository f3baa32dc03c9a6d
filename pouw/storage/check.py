"""Hashing again what a store holds."""

from __future__ import annotations

from collections.abc import Iterator

from pouw.errors import ContentError
from pouw.parallel import in_order
from pouw.storage.block import is_raw, within
from pouw.storage.local import LocalStore
from pouw.storage.store import Store
from pouw.storage.unixfs import unique_blocks


def faults(cid: str, store: Store) -> Iterator[ContentError]:
    """What is wrong with the file or document ``cid``: every fault in a folder, else the first."""
    if isinstance(store, LocalStore):
        yield from store.faults(cid)
        return
    fetch = within(cid, store.get_block)
    try:
        if not is_raw(cid):
            below = (link.cid for link in unique_blocks(cid, fetch))
            for _ in in_order(lambda block: len(fetch(block)), below):
                pass
        fetch(cid)
    except ContentError as error:
        yield error
