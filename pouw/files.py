"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".part"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def atomic_file(path: Path, *, sync_folder: bool = True) -> Iterator[BinaryIO]:
    """A file to write that takes the name ``path`` when the block ends without an error.

    It is written under a temporary name in the same folder (made where it is missing), flushed to
    the disk and renamed; after an error or a crash nothing of it is visible under ``path``.
    ``sync_folder=False`` leaves it to the caller to flush the folder, once for many files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync_folder:
        sync(path.parent)


def temporary_sibling(path: Path) -> Path:
    """An unused hidden name in the folder of ``path``."""
    return path.with_name(f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def sync(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def advice(error: OSError) -> str | None:
    """What a user can do about ``error``, where that is plain."""
    if error.errno in _FULL:
        return "the disk or the quota is full: free some space, then run the same again"
    if error.errno in _FORBIDDEN:
        return "check who owns the file or folder and whether it may be written"
    return None
