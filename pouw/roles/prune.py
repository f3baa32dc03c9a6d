"""Pruning: a node lets go of models that are not worth their space (paper, 4.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pouw.documents import Manifest
from pouw.errors import ContentError, DocumentError
from pouw.hashing import raw_cid
from pouw.ledger.pruning import Keep, Retention, retentions
from pouw.roles.base import Observer
from pouw.roles.content import fetch_manifest, fetch_spec
from pouw.roles.follow import read_history
from pouw.storage.store import Store

Collect = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Pruned:
    """One revealed model, and the bytes of its content that the store holds.

    ``cids``: files to let go, empty where the model is kept, shared with a kept one, or not here.
    """

    retention: Retention
    bytes: int
    cids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pruning:
    """What a pruning does, or would do; ``blocks``: removed, None where it was not carried out."""

    models: tuple[Pruned, ...]
    blocks: int | None

    @property
    def freed_bytes(self) -> int:
        """The size of what is let go."""
        return sum(one.bytes for one in self.models if one.cids)


def plan(observer: Observer, keep: Keep, margin_ppm: int) -> Pruning:
    """What `carry_out` would do; it changes nothing."""
    history = read_history(observer)
    decided = [
        (one, _found(fetch_manifest, observer, one.reveal.manifest_digest))
        for one in retentions(history, keep, margin_ppm)
    ]
    held = {
        cid
        for one, manifest in decided
        if one.kept and manifest is not None
        for cid in _files(manifest)
    }
    # Of a round that is not closed nothing is known to be superfluous yet.
    for record in history.rounds.values():
        if not record.closed:
            for reveal in record.reveals:
                manifest = _found(fetch_manifest, observer, reveal.manifest_digest)
                held.update(_files(manifest) if manifest is not None else ())
    return Pruning(tuple(_pruned(observer, *each, held) for each in decided), None)


def carry_out(observer: Observer, pruning: Pruning, collect: Collect) -> Pruning:
    """Unpin what ``pruning`` names, worst models first, then collect; idempotent.

    Everything else that the closed rounds need is pinned first, so that the collection spares it.
    A kill on the way leaves content that the next pruning removes.
    """
    store = observer.store
    for cid in _needed(observer, pruning):
        if store.has(cid):
            store.pin(cid)
    for one in pruning.models:
        for cid in one.cids:
            store.unpin(cid)
    return Pruning(pruning.models, collect())


def _needed(observer: Observer, pruning: Pruning) -> Iterator[str]:
    """Documents and archives of all rounds, and the files of the models that are kept."""
    for record in read_history(observer).rounds.values():
        yield raw_cid(record.task.spec_digest)
        yield raw_cid(record.evidence_digest)
        yield from (raw_cid(vote.evidence_digest) for vote in record.votes)
        yield from (raw_cid(reveal.manifest_digest) for reveal in record.reveals)
        spec = _found(fetch_spec, observer, record.task.spec_digest)
        if spec is not None:
            yield from (spec.train.cid, spec.test.cid)
    for one in pruning.models:
        if one.retention.kept:
            manifest = _found(fetch_manifest, observer, one.retention.reveal.manifest_digest)
            yield from _files(manifest) if manifest is not None else ()


def _pruned(
    observer: Observer, one: Retention, manifest: Manifest | None, held: set[str]
) -> Pruned:
    if manifest is None:
        return Pruned(one, 0, ())
    files = {cid: size for cid, size in _files(manifest).items() if observer.store.has(cid)}
    if not one.kept:
        files = {cid: size for cid, size in files.items() if cid not in held}
    return Pruned(one, sum(files.values()), () if one.kept else tuple(files))


def _files(manifest: Manifest) -> dict[str, int]:
    """The files of a manifest with their sizes: the model, then the checkpoints."""
    files = {manifest.model.cid: manifest.model.bytes}
    files.update((each.cid, each.bytes) for each in manifest.checkpoints)
    return files


def _found(fetch: Callable[[Store, bytes], Any], observer: Observer, digest: bytes) -> Any:
    """A document, or None where it is gone or is none: strangers wrote it."""
    try:
        return fetch(observer.store, digest)
    except (ContentError, DocumentError):
        return None
