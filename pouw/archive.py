"""Folders as tar files, one form for one content: the same files make the same bytes.

An archive holds regular files only, as plain USTAR entries sorted by name (mode 0644, owner 0,
time 0, no folders), then 1,024 zero bytes. It opens with any tar. ``unpack`` accepts exactly what
``pack`` writes, by writing each header again and comparing: links, devices, extensions, absolute
or parent paths, repeated names and hidden bytes have no way to be expressed.

Names are relative, of at most 100 characters, of ASCII letters, digits, spaces, ``._+=@()-`` and
``/``; no part begins with a dot, a dash or a space or ends with a dot or a space; no two names
differ by case alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pouw.errors import DataError
from pouw.files import advice, atomic_file, sync, temporary_sibling
from pouw.parallel import in_order

_BLOCK: Final = tarfile.BLOCKSIZE
_END: Final = bytes(2 * _BLOCK)
_PIECE: Final = 1 << 20
_NAME_CHARACTERS: Final = 100
_FILE_BYTES: Final = 8**11 - 1
_PART: Final = re.compile(r"[A-Za-z0-9_+=@(][A-Za-z0-9._+=@()\- ]*(?<![. ])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may unpack to; nothing is compressed, so a ratio is no question."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    size: int
    start: int


def pack(folder: Path, destination: Path) -> int:
    """Write every file below ``folder`` to the archive ``destination``; its size in bytes.

    DataError where the folder holds no file, a link or special file, or a name that is not
    allowed, or where a file changes meanwhile.
    """
    with _explained(f"cannot pack {folder}"):
        names = _names_below(folder)
        _check_together(names)
        with atomic_file(destination) as archive:
            for name in names:
                _pack_file(folder / name, name, archive)
            archive.write(_END)
            return archive.tell()


def unpack(source: Path, destination: Path, limits: Limits) -> None:
    """Write the files of the archive ``source`` to the new folder ``destination``.

    All entries are read and checked before the first byte is written; the folder appears when all
    is on the disk. DataError where ``source`` is not an archive that ``pack`` could have written,
    passes ``limits``, or ``destination`` is there already.
    """
    with _explained(f"cannot unpack {source}"), source.open("rb") as archive:
        entries = _entries(archive, source, limits)
        if os.path.lexists(destination):
            raise DataError(f"{destination} is there already", hint="name a new folder")
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(destination)
        temporary.mkdir()
        try:
            for entry in entries:
                _unpack_file(archive, entry, temporary / entry.name, source)
            _flush(temporary, entries)
            temporary.rename(destination)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(destination.parent)


def _names_below(folder: Path) -> list[str]:
    names = []
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as found:
            for item in found:
                path = Path(item.path)
                name = path.relative_to(folder).as_posix()
                if item.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif item.is_file(follow_symlinks=False):
                    _check_name(name, str(folder))
                    names.append(name)
                else:
                    raise DataError(
                        f"{path} is a link or a special file",
                        hint="replace it by a copy of the file it stands for",
                    )
    if not names:
        raise DataError(f"{folder} holds no files", hint="name the folder of a data set")
    return sorted(names)


def _check_name(name: str, where: str) -> None:
    if len(name) > _NAME_CHARACTERS or not all(_PART.fullmatch(part) for part in name.split("/")):
        raise DataError(
            f"the name {name!r} in {where} is not allowed in an archive",
            hint=f"at most {_NAME_CHARACTERS} ASCII letters, digits and ._+=@()- ; no hidden files",
        )


def _check_together(names: list[str]) -> None:
    """Every name once, on any file system, and none a folder of another."""
    files = {name.lower() for name in names}
    folders = {parent for name in files for parent in _parents(name)}
    if len(files) != len(names) or files & folders:
        seen: set[str] = set(folders)
        for name in names:
            if name.lower() in seen:
                raise DataError(
                    f"the name {name!r} is there twice (case does not count)",
                    hint="rename one of the two",
                )
            seen.add(name.lower())


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")
    for end in range(1, len(parts)):
        yield "/".join(parts[:end])


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _pack_file(path: Path, name: str, archive: BinaryIO) -> None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > _FILE_BYTES:
            raise DataError(f"{path} has {size} bytes, at most {_FILE_BYTES} fit in an archive")
        archive.write(_header(name, size))
        if _transfer(file, archive, size) or file.read(1):
            raise DataError(f"{path} changed while it was packed", hint="pack again")
    archive.write(bytes(-size % _BLOCK))


def _entries(archive: BinaryIO, source: Path, limits: Limits) -> list[_Entry]:
    entries: list[_Entry] = []
    total = 0
    while (header := archive.read(_BLOCK)) != _END[:_BLOCK]:
        entry = _parse(header, archive.tell(), source)
        total += entry.size
        if len(entries) >= limits.files or total > limits.bytes:
            raise DataError(
                f"{source} holds more than {limits.files} files or {limits.bytes} bytes",
                hint="the spec allows no more: do not use this archive",
            )
        if entries and entry.name <= entries[-1].name:
            raise _refused(source, f"{entry.name!r} is repeated or out of order")
        entries.append(entry)
        padding = -entry.size % _BLOCK
        archive.seek(entry.size, os.SEEK_CUR)
        if archive.read(padding) != bytes(padding):
            raise _refused(source, f"{entry.name!r} is cut off or followed by hidden bytes")
    if archive.read(_BLOCK + 1) != _END[:_BLOCK] or not entries:
        raise _refused(source, "it is empty or does not end where it should")
    _check_together([entry.name for entry in entries])
    return entries


def _parse(header: bytes, start: int, source: Path) -> _Entry:
    try:
        name = header[:_NAME_CHARACTERS].rstrip(b"\0").decode("ascii")
        size = int(header[124:135].decode("ascii"), 8)
    except ValueError as error:
        raise _refused(source, f"no plain entry at byte {start - len(header)}") from error
    _check_name(name, str(source))
    if size < 0 or _header(name, size) != header:
        raise _refused(source, f"{name!r} is not a plain file, or its entry is written otherwise")
    return _Entry(name, size, start)


def _unpack_file(archive: BinaryIO, entry: _Entry, path: Path, source: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    archive.seek(entry.start)
    with path.open("xb") as file:
        if _transfer(archive, file, entry.size):
            raise _refused(source, f"it ends within {entry.name!r}")


def _flush(folder: Path, entries: list[_Entry]) -> None:
    """Have what was unpacked on the disk.

    All files at the end and several at once: one after the other, each waits for the disk on its
    own, and a million small ones take more than an hour.
    """
    for _ in in_order(sync, (folder / entry.name for entry in entries)):
        pass
    for name, _, _ in os.walk(folder):
        sync(Path(name))


def _transfer(source: BinaryIO, destination: BinaryIO, size: int) -> int:
    """Copy ``size`` bytes; how many were missing."""
    while size and (piece := source.read(min(size, _PIECE))):
        destination.write(piece)
        size -= len(piece)
    return size


def _refused(source: Path, reason: str) -> DataError:
    return DataError(
        f"{source} is not an archive of this format: {reason}",
        hint="archives are made by `pouw publisher publish`, and by nothing else",
    )


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{what}: {error.filename or ''} {error.strerror}", hint=advice(error)
        ) from error
