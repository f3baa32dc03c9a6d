"""What a role keeps in its store for others, and for how long.

Miners serve what they revealed, oracles what they judged, until the round is closed and the task's
``retention_days`` are over; then it is unpinned. A winner is never let go here: publisher, miner
and oracles keep it until ``pouw node prune`` or ``pouw store unpin``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pouw.documents import Manifest, TaskSpec
from pouw.errors import ContentMismatch
from pouw.hashing import raw_cid
from pouw.roles.base import Errands, Setup
from pouw.roles.feed import Feed
from pouw.storage.store import Store
from pouw.storage.unixfs import file_bytes
from pouw.types import Address, RoundNumber

DAY_SECONDS: Final = 86_400
_KEPT: Final = "kept"


def hold(store: Store, cid: str, size: int) -> None:
    """Pin the file ``cid`` of exactly ``size`` bytes, fetching what the store lacks of it.

    ContentMismatch, before the rest is fetched, where the file is of another size.
    """
    found = file_bytes(cid, store.get_block)
    if found != size:
        raise ContentMismatch(f"{cid} holds {found} bytes, {size} were declared", cid=cid)
    store.pin(cid)


def files_of(manifest: Manifest) -> tuple[tuple[str, int], ...]:
    """CID and size of every file that the manifest names, the model last."""
    checkpoints = ((each.cid, each.bytes) for each in manifest.checkpoints)
    return (*checkpoints, (manifest.model.cid, manifest.model.bytes))


@dataclass(frozen=True, slots=True)
class Keeper:
    """The pins of one role by round and miner; the journal knows them before the store does."""

    setup: Setup
    errands: Errands

    def keep(
        self,
        number: RoundNumber,
        miner: Address,
        spec: TaskSpec,
        files: Iterable[tuple[str, int]],
        document: bytes,
        here: Mapping[str, Path] | None = None,
    ) -> None:
        """Pin ``files`` (CID and size each) and the document with that digest.

        Only what nothing else had pinned is let go later: strangers choose what they name. Files
        that lie at ``here``, by CID, are moved into the store, so that it need not fetch them.
        """
        files, manifest, key = tuple(files), raw_cid(document), f"{number}/{miner}"
        pinned, ours = self.setup.store.pins(), self._pinned_here()
        new = [
            cid
            for cid in (manifest, *(cid for cid, _ in files))
            if cid in ours or cid not in pinned
        ]
        self._record(key, new, spec)
        try:
            for cid, size in files:
                path = (here or {}).get(cid)
                if path is not None and path.exists():
                    self.setup.store.put_file(path)
                hold(self.setup.store, cid, size)
                ours.add(cid)
                if path is not None:
                    path.unlink(missing_ok=True)
            self.setup.store.pin(manifest)
            ours.add(manifest)
        finally:
            # What could not be had may be pinned for another reason before it is tried again.
            self._record(key, [cid for cid in new if cid in ours], spec)

    def tend(self, feed: Feed, now: int) -> None:
        """Let go of what lost, once its time is over; ``now`` in seconds since the epoch."""
        for key, record in self.setup.journal.items(_KEPT):
            number, miner = key.split("/")
            closed = feed.round(RoundNumber(int(number))).closed
            if closed is None or closed.winner == miner:
                continue
            if now >= closed.closed_at + record["days"] * DAY_SECONDS:
                name = f"let go of what {miner} revealed in round {number}"
                self.errands.prepare(name, self._letting_go(key))

    def _record(self, key: str, cids: list[str], spec: TaskSpec) -> None:
        self.setup.journal.put(_KEPT, key, {"cids": cids, "days": spec.retention_days})

    def _pinned_here(self, *, without: str | None = None) -> set[str]:
        """What is pinned because it was revealed, and for nothing else."""
        return {
            cid
            for key, record in self.setup.journal.items(_KEPT)
            if key != without
            for cid in record["cids"]
        }

    def _letting_go(self, key: str) -> Callable[[], None]:
        def let_go() -> None:
            # Miners may have revealed the same file; it stays as long as one of them is kept for.
            others = self._pinned_here(without=key)
            for cid in self.setup.journal.get(_KEPT, key)["cids"]:
                if cid not in others:
                    self.setup.store.unpin(cid)
            self.setup.journal.delete(_KEPT, key)

        return let_go
