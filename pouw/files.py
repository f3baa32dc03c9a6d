"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".part"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_BROKEN = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_PARTIAL_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


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


@contextlib.contextmanager
def partial_file(
    path: Path, size: int, discard_after: type[BaseException] | tuple[type[BaseException], ...] = ()
) -> Iterator[int]:
    """A descriptor to fill with ``size`` bytes in any order; ``path`` once the block ends well.

    What was written outlives a kill, and every error but those of ``discard_after``, as
    ``.NAME.part`` beside ``path``, and is there again at the next attempt. Nothing vouches for it:
    check each part before keeping it. A second process at the same path gets a file of its own.
    OSError (ENOSPC) at once where the disk has not the room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    descriptor = _open_locked(partial)
    if descriptor is None:
        partial = temporary_sibling(path)
        discard_after = BaseException
        descriptor = os.open(partial, _PARTIAL_FLAGS, 0o666)
    try:
        if os.fstat(descriptor).st_size > size:
            os.ftruncate(descriptor, size)
        _check_room(descriptor, size, path)
        yield descriptor
        os.fsync(descriptor)
        partial.replace(path)
    except BaseException as error:
        if isinstance(error, discard_after) or not os.fstat(descriptor).st_size:
            partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    sync(path.parent)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``."""
    view = memoryview(data)
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _open_locked(partial: Path) -> int | None:
    """The partial file, locked until it is closed; None where another process has it."""
    while True:
        descriptor = os.open(partial, _PARTIAL_FLAGS, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        # Whoever held the lock may have finished, and given the file its name.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), partial.stat(follow_symlinks=False)):
                return descriptor
        os.close(descriptor)


def _check_room(descriptor: int, size: int, path: Path) -> None:
    disk, there = os.fstatvfs(descriptor), os.fstat(descriptor).st_blocks * 512
    if disk.f_blocks and size - there > disk.f_bavail * disk.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def temporary_sibling(path: Path) -> Path:
    """An unused hidden name in the folder of ``path``."""
    return path.with_name(f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def of_machine(error: BaseException) -> bool:
    """Whether this machine's trouble (a full disk, too many files) is behind ``error``.

    Then it says nothing about the content that was read or written.
    """
    return any(
        isinstance(cause, OSError) and cause.errno in _FULL | _FORBIDDEN | _BROKEN
        for cause in _causes(error)
    )


def of_full_disk(error: BaseException) -> bool:
    """Whether a full disk is behind ``error``, as the system or as SQLite says it."""
    return any(
        (isinstance(cause, OSError) and cause.errno in _FULL)
        or getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


class LockedError(Exception):
    """A file is locked by ``holder``, a process in words."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file ``path``, made where it is missing; LockedError at once where another does.

    The lock goes with the process, whatever ends that.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            number = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            raise LockedError(f"process {number or 'unknown'}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


class Ballast:
    """Room set aside on the disk of ``path``, to be given up where that is full."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._size = size

    def take(self) -> None:
        """Set it aside, where it is not and there is room for it."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            except OSError:
                self.path.unlink()
            finally:
                os.close(descriptor)

    def give_up(self) -> bool:
        """Make room where there is none; whether that was done."""
        try:
            disk = os.statvfs(self.path)
            if disk.f_bavail * disk.f_frsize >= self._size:
                return False
            self.path.unlink()
        except OSError:
            return False
        return True


def advice(error: OSError) -> str | None:
    """What a user can do about ``error``, where that is plain."""
    if error.errno in _FULL:
        return "the disk or the quota is full: free some space, then run the same again"
    if error.errno in _FORBIDDEN:
        return "check who owns the file or folder and whether it may be written"
    return None
