"""Archives: one form for one content, and hostile ones refused before a byte is written."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pouw.archive import Limits, pack, unpack
from pouw.errors import DataError

LIMITS = Limits(files=10, bytes=1 << 20)
FILES = {
    "dataset.json": b"{}",
    "imagesTr/case 1_0000.nii.gz": random.Random(1).randbytes(1000),
    "imagesTr/case-2_0000.nii.gz": b"",
    "labelsTr/case_1.nii.gz": bytes(512),
    "labelsTr/deep/er/x": b"x",
}


def lay(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def entry(name: str, size: int = 1, **fields: object) -> bytes:
    """One tar entry with its data, as pack would write it but for ``fields``."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(size) + bytes(-size % 512)


def huge() -> tarfile.TarInfo:
    """An entry that announces 8 GiB."""
    info = tarfile.TarInfo("a")
    info.size, info.mode = 8**11 - 1, 0o644
    return info


def refused(tmp_path: Path, data: bytes, match: str, limits: Limits = LIMITS) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(data)
    with pytest.raises(DataError, match=match):
        unpack(archive, tmp_path / "out" / "data", limits)
    assert [path.name for path in tmp_path.iterdir()] == ["archive.tar"]


def test_unpack__what_was_packed__comes_back(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    size = pack(lay(tmp_path / "in"), archive)
    assert size == archive.stat().st_size
    unpack(archive, tmp_path / "out" / "data", LIMITS)
    assert read(tmp_path / "out" / "data") == FILES
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data"]


def test_pack__same_content__gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = lay(tmp_path / "one"), tmp_path / "two"
    lay(two, dict(reversed(FILES.items())))
    (two / "empty folder").mkdir()
    (two / "dataset.json").chmod(0o700)
    os.utime(two / "dataset.json", (0, 0))
    pack(one, tmp_path / "one.tar")
    pack(two, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_pack__result__is_read_by_any_tar(tmp_path: Path) -> None:
    pack(lay(tmp_path / "in"), tmp_path / "archive.tar")
    with tarfile.open(tmp_path / "archive.tar") as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == sorted(FILES)
        assert all(member.isreg() and member.mtime == 0 for member in members)
        for member in members:
            file = tar.extractfile(member)
            assert file is not None
            assert file.read() == FILES[member.name]


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "folder/.hidden", "-rf", "umlaut\N{LATIN SMALL LETTER A WITH DIAERESIS}",
     "a" * 101, "new\nline", "back\\slash", "ends.", "ends ", "colon:"],
)  # fmt: skip
def test_pack__name_not_allowed__is_refused(tmp_path: Path, name: str) -> None:
    lay(tmp_path / "in", {"good": b"1", name: b"2"})
    with pytest.raises(DataError, match="not allowed"):
        pack(tmp_path / "in", tmp_path / "archive.tar")
    assert not (tmp_path / "archive.tar").exists()


def test_pack__names_that_differ_by_case_alone__are_refused(tmp_path: Path) -> None:
    lay(tmp_path / "in", {"Case": b"1", "case": b"2"})
    with pytest.raises(DataError, match="twice"):
        pack(tmp_path / "in", tmp_path / "archive.tar")


def test_pack__link__is_refused(tmp_path: Path) -> None:
    folder = lay(tmp_path / "in")
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="a link"):
        pack(folder, tmp_path / "archive.tar")
    (folder / "link").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match="special file"):
        pack(folder, tmp_path / "archive.tar")


@pytest.mark.parametrize("make", [True, False])
def test_pack__no_files__is_refused(tmp_path: Path, make: bool) -> None:
    if make:
        (tmp_path / "in").mkdir()
    with pytest.raises(DataError):
        pack(tmp_path / "in", tmp_path / "archive.tar")


END = bytes(1024)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "parent path": (entry("../escape") + END, "not allowed"),
    "parent path inside": (entry("a/../../escape") + END, "not allowed"),
    "absolute path": (entry("/etc/escape") + END, "not allowed"),
    "empty part": (entry("a//b") + END, "not allowed"),
    "dot": (entry("./a") + END, "not allowed"),
    "device name with colon": (entry("C:evil") + END, "not allowed"),
    "symbolic link": (entry("a", 0, type=tarfile.SYMTYPE, linkname="/etc") + END, "plain file"),
    "hard link": (entry("a", 0, type=tarfile.LNKTYPE, linkname="/etc/passwd") + END, "plain file"),
    "character device": (entry("a", 0, type=tarfile.CHRTYPE) + END, "plain file"),
    "block device": (entry("a", 0, type=tarfile.BLKTYPE) + END, "plain file"),
    "pipe": (entry("a", 0, type=tarfile.FIFOTYPE) + END, "plain file"),
    "folder": (entry("a", 0, type=tarfile.DIRTYPE) + END, "not allowed|plain file"),
    "sparse file": (entry("a", 0, type=tarfile.GNUTYPE_SPARSE) + END, "plain file"),
    "long name extension": (entry("a", 5, type=tarfile.GNUTYPE_LONGNAME) + END, "plain file"),
    "pax header": (entry("a", 5, type=tarfile.XHDTYPE) + END, "plain file"),
    "set user id": (entry("a", mode=0o4755) + END, "plain file"),
    "owner": (entry("a", uid=1000, uname="root") + END, "plain file"),
    "time": (entry("a", mtime=1) + END, "plain file"),
    "same name twice": (entry("a") + entry("a") + END, "repeated"),
    "out of order": (entry("b") + entry("a") + END, "out of order"),
    "same name but for case": (entry("A") + entry("a") + END, "twice"),
    "file and folder of one name": (entry("a") + entry("a/b") + END, "twice"),
    "no end": (entry("a"), "no plain entry"),
    "half an end": (entry("a") + bytes(512), "end where"),
    "bytes after the end": (entry("a") + END + b"\0", "end where"),
    "hidden bytes in the padding": (entry("a")[:-1] + b"!" + END, "hidden"),
    "cut off": (entry("a", 2000)[:1000], "cut off"),
    "no entries": (END, "empty"),
    "nothing": (b"", "no plain entry"),
    "noise": (random.Random(2).randbytes(2048), "no plain entry|not allowed|plain file"),
    "wrong checksum": (entry("a").replace(b"0000644", b"0000645") + END, "plain file"),
    "negative size": (entry("a")[:124] + b"-0000000001" + entry("a")[135:] + END, "plain file"),
    "binary size": (entry("a")[:124] + b"\x80" + bytes(10) + entry("a")[135:] + END, "no plain"),
    "more files than allowed": (b"".join(entry(f"f{i:02}") for i in range(11)) + END, "10 files"),
    "more bytes than allowed": (entry("a", (1 << 20) + 1) + END, "1048576 bytes"),
    "announces 8 GiB": (huge().tobuf(tarfile.USTAR_FORMAT), "1048576 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "match"), HOSTILE.values(), ids=HOSTILE.keys())
def test_unpack__hostile__writes_nothing(tmp_path: Path, data: bytes, match: str) -> None:
    refused(tmp_path, data, match)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_unpack__other_form_of_tar__is_refused(tmp_path: Path, form: int) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as tar:
        tar.add(lay(tmp_path / "in"), "data")
    for path in sorted((tmp_path / "in").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "in").rmdir()
    refused(tmp_path, data.getvalue(), "not an archive of this format|not allowed")


CHANGES: dict[str, Callable[[bytearray, int], None]] = {
    "flip": lambda data, position: data.__setitem__(position, data[position] ^ 4),
    "drop": lambda data, position: data.__delitem__(position),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_unpack__any_header_byte_changed__is_refused(
    tmp_path: Path, change: Callable[[bytearray, int], None]
) -> None:
    whole = entry("name") + END
    for position in range(512):
        data = bytearray(whole)
        change(data, position)
        refused(tmp_path, bytes(data), ".")


def test_unpack__within_the_limits_exactly__is_accepted(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(entry("a", 600) + entry("b", 400) + END)
    unpack(archive, tmp_path / "data", Limits(files=2, bytes=1000))
    assert {name: len(data) for name, data in read(tmp_path / "data").items()} == {
        "a": 600,
        "b": 400,
    }
    for limits in (Limits(files=1, bytes=1000), Limits(files=2, bytes=999)):
        with pytest.raises(DataError, match="more than"):
            unpack(archive, tmp_path / "other", limits)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells what a descriptor is of")
def test_unpack__files_and_folders__are_all_on_the_disk_before_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out = tmp_path / "archive.tar", tmp_path / "out" / "data"
    pack(lay(tmp_path / "in"), archive)
    flushed: list[tuple[Path, bool]] = []
    flush = os.fsync

    def noted(descriptor: int) -> None:
        flush(descriptor)
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink(), out.exists()))

    monkeypatch.setattr("os.fsync", noted)
    unpack(archive, out, LIMITS)
    *before, last = flushed
    assert last == (out.parent, True)
    assert not any(shown for _, shown in before)
    wanted = {out, *out.rglob("*")}
    (hidden,) = {path for path, _ in before if path.parent == out.parent}
    assert {out / path.relative_to(hidden) for path, _ in before} == wanted


def test_unpack__destination_there__is_refused_and_untouched(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    pack(lay(tmp_path / "in"), archive)
    lay(tmp_path / "out", {"mine": b"1"})
    with pytest.raises(DataError, match="there already"):
        unpack(archive, tmp_path / "out", LIMITS)
    assert read(tmp_path / "out") == {"mine": b"1"}


def test_unpack__no_file__says_which(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        unpack(tmp_path / "absent", tmp_path / "out", LIMITS)
