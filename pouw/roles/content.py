"""Documents and archives that a task names: fetched, verified, opened."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from pouw.archive import Limits, unpack
from pouw.documents import Archive, Manifest, TaskSpec
from pouw.errors import ContentTooLarge, DataError
from pouw.hashing import raw_cid
from pouw.ml.layout import Dataset, read_dataset
from pouw.sealing import open_file
from pouw.storage.store import Store

MAX_ARCHIVE_BYTES = 256 << 30
MAX_ARCHIVE_FILES = 1_000_000


def fetch_spec(store: Store, digest: bytes) -> TaskSpec:
    """The TaskSpec with that sha2-256 digest."""
    return TaskSpec.parse(store.get_bytes(raw_cid(digest)))


def fetch_manifest(store: Store, digest: bytes) -> Manifest:
    """The Manifest with that sha2-256 digest."""
    return Manifest.parse(store.get_bytes(raw_cid(digest)))


def fetch_archive(store: Store, archive: Archive, folder: Path) -> Path:
    """The sealed archive as a file in ``folder``, fetched once; it needs no key."""
    if archive.bytes > MAX_ARCHIVE_BYTES:
        raise ContentTooLarge(
            f"the archive has {archive.bytes} bytes, at most {MAX_ARCHIVE_BYTES} are taken",
            cid=archive.cid,
        )
    sealed = folder / f"{archive.cid}.sealed"
    if not sealed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        store.get_file(archive.cid, sealed, archive.bytes)
    return sealed


def open_archive(
    store: Store,
    archive: Archive,
    key: bytes,
    folder: Path,
    kind: Literal["train", "test"],
    channels: tuple[str, ...],
    labels: tuple[str, ...],
) -> Path:
    """The data set in the archive, opened once as ``folder / kind``.

    WrongKey or SealError where the key does not open it, DataError where it is not the data set
    that the spec describes.
    """
    opened = folder / kind
    if opened.exists():
        return opened
    sealed = fetch_archive(store, archive, folder)
    plain = folder / f"{kind}.tar"
    staged = folder / f"{kind}.opening"
    shutil.rmtree(staged, ignore_errors=True)
    open_file(sealed, plain, key)
    unpack(plain, staged, Limits(files=MAX_ARCHIVE_FILES, bytes=archive.bytes))
    plain.unlink()
    _check_dataset(read_dataset(staged), archive, kind, channels, labels)
    staged.rename(opened)
    sealed.unlink()
    return opened


def _check_dataset(
    dataset: Dataset,
    archive: Archive,
    kind: Literal["train", "test"],
    channels: tuple[str, ...],
    labels: tuple[str, ...],
) -> None:
    cases = dataset.train if kind == "train" else dataset.test
    if len(cases) != archive.cases:
        raise DataError(f"the {kind} archive holds {len(cases)} cases, {archive.cases} declared")
    if any(case.label is None for case in cases):
        raise DataError(f"the {kind} archive holds cases without labels")
    if dataset.channels != channels or dataset.labels != labels:
        raise DataError(
            f"the {kind} archive has channels {dataset.channels} and labels {dataset.labels}, "
            f"the spec {channels} and {labels}"
        )
