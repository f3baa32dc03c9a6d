"""Several places as one store: written to the first, read from all, believed none.

A block is asked for at one place after the other until one sends bytes that hash to its CID. A
place that lied, broke off or made us wait is asked last for a while, so a dead mirror costs one
timeout, not one a block, and one that serves a rival's content slowly is not asked for it again.
That a mirror lies says nothing about the content, hence the error in the end is always
ContentNotFound, with what every place answered.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from pouw.errors import ContentError, ContentMismatch, ContentNotFound, ContentTooLarge
from pouw.parallel import in_order
from pouw.storage.block import is_raw
from pouw.storage.cid import Leaves, Stored
from pouw.storage.network import NetworkStore
from pouw.storage.store import Store
from pouw.storage.unixfs import unique_blocks

LIE_SECONDS: Final = 600.0
FAULT_SECONDS: Final = 15.0
_SLOW_SECONDS: Final = 1.0
_REST_FACTOR: Final = 20


@dataclass(slots=True)
class _Rest:
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    store: Store
    rest: _Rest

    def until(self, ending: threading.Event) -> _Place:
        store = self.store
        return replace(self, store=store.until(ending)) if isinstance(store, NetworkStore) else self


class Mirrors(NetworkStore):
    """``Store`` over ``places`` (name and store each): the first is ours, the others only read."""

    def __init__(
        self,
        places: Sequence[tuple[str, Store]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = [_Place(name, store, _Rest()) for name, store in places]
        self._own = self._places[0].store
        self._clock = clock
        self._lock = threading.Lock()
        self._endings: tuple[threading.Event, ...] = ()
        self.name = ",".join(place.name for place in self._places)

    def until(self, ending: threading.Event) -> Self:
        """The same places, which once ``ending`` is set are asked for nothing that is not here.

        ContentError then; the block or call of the moment has a second left.
        """
        store = copy.copy(self)
        store._endings = (*self._endings, ending)
        store._places = [place.until(ending) for place in self._places]
        store._own = store._places[0].store
        return store

    def put_block(self, cid: str, data: bytes) -> None:
        """Keep one block in the first place."""
        self._own.put_block(cid, data)

    def put_file(self, path: Path) -> Stored:
        """Keep the file ``path`` in the first place; the CID of its root and its size in bytes."""
        return self._own.put_file(path)

    def put_leaves(self, source: Leaves) -> Stored:
        """Keep a file that is made leaf by leaf in the first place; its root's CID and size."""
        return self._own.put_leaves(source)

    def take(self, cids: Iterable[str], source: Store) -> None:
        """Keep in the first place what ``source`` has of these files and documents."""
        self._own.take(cids, source)

    def get_block(self, cid: str) -> bytes:
        """The verified bytes of one block, from the first place that has them."""
        return bytes(self.fetch(cid))

    def fetch(self, cid: str) -> bytes | memoryview:
        """As ``get_block``; the bytes hold until the same thread fetches again."""
        answers = []
        for place in self._order():
            if self._ended and not (place.store is self._own and _has_block(place.store, cid)):
                continue
            begun = self._clock()
            try:
                store = place.store
                data = store.fetch(cid) if isinstance(store, NetworkStore) else store.get_block(cid)
            except ContentError as error:
                # What was broken off for whoever wanted it is no fault, only slow.
                lied = isinstance(error, ContentMismatch | ContentTooLarge)
                fault = error if lied or not self._ended else None
                self._rest(place, fault, self._clock() - begun)
                answers.append(f"{place.name}: {error}")
            else:
                self._rest(place, None, self._clock() - begun)
                return data
        if self._ended:
            raise ContentError(f"{cid} is not fetched: whoever wanted it has ended", cid=cid)
        raise ContentNotFound(
            f"no place has {cid}: {'; '.join(answers)}",
            cid=cid,
            hint="is whoever should serve it online? Further places can be named with --store",
        )

    def has_block(self, cid: str) -> bool:
        """Whether any place says that it has the block; nothing is verified."""
        return any(_has_block(place.store, cid) for place in self._places)

    def has(self, cid: str) -> bool:
        """Whether one of the places has every block of it (not whether it is sound)."""
        return any(place.store.has(cid) for place in self._places) or super().has(cid)

    def pin(self, cid: str) -> None:
        """Bring to the first place what it lacks, and pin it there."""
        if len(self._places) > 1 and not self._own.has(cid):
            self._bring(cid)
        self._own.pin(cid)

    def unpin(self, cid: str) -> None:
        """Let it go from the first place at the next collection."""
        self._own.unpin(cid)

    def pins(self) -> frozenset[str]:
        """The CIDs that are pinned in the first place."""
        return self._own.pins()

    def close(self) -> None:
        """Let go of connections; a store that is used again opens new ones."""
        for place in self._places:
            if isinstance(place.store, NetworkStore):
                place.store.close()

    @property
    def _ended(self) -> bool:
        return any(ending.is_set() for ending in self._endings)

    def _bring(self, cid: str) -> None:
        """Copy every block to the first place, the root last; what it has costs no network."""

        def bring(block: str) -> None:
            self._own.put_block(block, self.get_block(block))

        if not is_raw(cid):
            below = (link.cid for link in unique_blocks(cid, self.get_block))
            for _ in in_order(bring, below):
                pass
        bring(cid)

    def _order(self) -> list[_Place]:
        """As they were named, those that rest last."""
        now = self._clock()
        with self._lock:
            return sorted(self._places, key=lambda place: max(0.0, place.rest.until - now))

    def _rest(self, place: _Place, error: ContentError | None, waited_seconds: float) -> None:
        if isinstance(error, ContentMismatch | ContentTooLarge):
            rest = LIE_SECONDS
        elif error is not None and not isinstance(error, ContentNotFound):
            rest = FAULT_SECONDS
        elif waited_seconds > _SLOW_SECONDS:
            rest = 0.0
        else:
            return
        with self._lock:
            place.rest.until = self._clock() + max(rest, _REST_FACTOR * waited_seconds)


def _has_block(store: Store, block: str) -> bool:
    try:
        return store.has_block(block) if isinstance(store, NetworkStore) else store.has(block)
    except ContentError:
        return False
