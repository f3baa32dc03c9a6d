"""Documents and archives that a task names: fetched, verified, opened."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pouw.archive import Limits, unpack
from pouw.documents import Archive, Evidence, Manifest, TaskSpec
from pouw.errors import (
    ContentError,
    ContentMisdeclared,
    ContentNotFound,
    ContentTooLarge,
    DataError,
    DocumentError,
    SealError,
)
from pouw.files import advice, atomic_file
from pouw.hashing import data_key_of, raw_cid, sha256
from pouw.ml.layout import Dataset, read_opened
from pouw.sealing import check_key, open_file
from pouw.storage.store import Store

UNUSABLE = (DocumentError, SealError, DataError, ContentMisdeclared, ContentTooLarge)
"""What spec or archives raise that are not what the publisher says, unless the machine is broken
(`pouw.files.of_machine`): the task is invalid."""
MAX_ARCHIVE_BYTES = 256 << 30
MAX_ARCHIVE_FILES = 1_000_000
_SPEC_FILE = "spec.json"


def fetch_spec(store: Store, digest: bytes) -> TaskSpec:
    """The TaskSpec with that sha2-256 digest."""
    with _served_by("publisher"):
        return TaskSpec.parse(store.get_bytes(raw_cid(digest)))


def kept_spec(store: Store, digest: bytes, folder: Path) -> TaskSpec:
    """The TaskSpec with that sha2-256 digest, which the first fetch leaves in ``folder``.

    From then on it needs no store. ContentError where it cannot be kept.
    """
    kept = folder / _SPEC_FILE
    with suppress(OSError):
        data = kept.read_bytes()
        if sha256(data) == digest:
            return TaskSpec.parse(data)
    spec = fetch_spec(store, digest)
    try:
        with atomic_file(kept) as file:
            file.write(spec.encode())
    except OSError as error:
        raise ContentError(
            f"cannot keep {kept}: {error.strerror}", cid=raw_cid(digest), hint=advice(error)
        ) from error
    return spec


def holds_another(folder: Path, digest: bytes) -> bool:
    """Whether what ``kept_spec`` left in ``folder`` is the spec of another digest."""
    try:
        return sha256((folder / _SPEC_FILE).read_bytes()) != digest
    except OSError:
        return False


def fetch_manifest(store: Store, digest: bytes) -> Manifest:
    """The Manifest with that sha2-256 digest."""
    with _served_by("miner"):
        return Manifest.parse(store.get_bytes(raw_cid(digest)))


def fetch_evidence(store: Store, digest: bytes) -> Evidence:
    """The Evidence with that sha2-256 digest."""
    with _served_by("oracle"):
        return Evidence.parse(store.get_bytes(raw_cid(digest)))


def sealed_path(archive: Archive, folder: Path) -> Path:
    """Where in ``folder`` the sealed archive is fetched to."""
    return folder / f"{archive.cid}.sealed"


def fetch_archive(store: Store, archive: Archive, folder: Path) -> Path:
    """The sealed archive as a file in ``folder``, fetched once; it needs no key."""
    if archive.bytes > MAX_ARCHIVE_BYTES:
        raise ContentTooLarge(
            f"the archive has {archive.bytes} bytes, at most {MAX_ARCHIVE_BYTES} are taken",
            cid=archive.cid,
        )
    sealed = sealed_path(archive, folder)
    if not sealed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _served_by("publisher"):
            store.get_file(archive.cid, sealed, archive.bytes)
    return sealed


def open_archive(
    store: Store,
    spec: TaskSpec,
    kind: Literal["train", "test"],
    key: bytes,
    key_hash: bytes,
    folder: Path,
) -> Path:
    """The data set in one archive of the spec, opened once as ``folder / kind``.

    ``key`` is the data key or the test key, ``key_hash`` the task's ``keyHash``, which commits to
    both. WrongKey or SealError where the key does not open it, DataError where the content is not
    the data set that the spec describes.
    """
    opened = folder / kind
    if opened.exists():
        return opened
    archive = spec.train if kind == "train" else spec.test
    check_key(key if kind == "train" else data_key_of(key), key_hash)
    sealed = fetch_archive(store, archive, folder)
    plain = folder / f"{kind}.tar"
    staged = folder / f"{kind}.opening"
    shutil.rmtree(staged, ignore_errors=True)
    open_file(sealed, plain, key, key_hash if kind == "train" else data_key_of(key))
    # An image for each channel and a label of every case, and the description.
    files = min(archive.cases * (len(spec.channels) + 1) + 1, MAX_ARCHIVE_FILES)
    unpack(plain, staged, Limits(files=files, bytes=archive.bytes))
    plain.unlink()
    _check_dataset(read_opened(staged), spec, kind)
    staged.rename(opened)
    sealed.unlink()
    return opened


def _check_dataset(dataset: Dataset, spec: TaskSpec, kind: Literal["train", "test"]) -> None:
    cases, declared = (
        (dataset.train, spec.train.cases) if kind == "train" else (dataset.test, spec.test.cases)
    )
    if len(cases) != declared:
        raise DataError(f"the {kind} archive holds {len(cases)} cases, {declared} declared")
    if any(case.label is None for case in cases):
        raise DataError(f"the {kind} archive holds cases without labels")
    if (dataset.channels, dataset.labels) != (spec.channels, spec.labels):
        raise DataError(
            f"the {kind} archive has channels {dataset.channels} and labels {dataset.labels}, "
            f"the spec {spec.channels} and {spec.labels}"
        )


@contextmanager
def _served_by(role: Literal["publisher", "miner", "oracle"]) -> Iterator[None]:
    """Say whose place to name where content is missing: no store knows who should have it."""
    try:
        yield
    except ContentNotFound as error:
        raise ContentNotFound(
            str(error),
            cid=error.cid,
            hint=f"name where the {role} serves it: --store pouw-store,http://{role.upper()}:8088",
        ) from error
