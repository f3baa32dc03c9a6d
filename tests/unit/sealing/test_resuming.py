"""Opening goes on where it was killed, and trusts nothing of what it finds."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sealed_files import write_sealed

from pouw.errors import SealError
from pouw.files import write_at
from pouw.hashing import keccak
from pouw.sealing import SealedReader, open_file

KEY = bytes(range(32))
HASH = keccak(KEY)
CHUNK = 1 << 20
DATA = hashlib.shake_128(b"plaintext").digest(12 * CHUNK)

OPEN = """
import sys, time
from pathlib import Path
from pouw.hashing import keccak
from pouw.sealing import open_file
def told(size):
    print(size, flush=True)
    sys.stdin.read(1)
open_file(Path(sys.argv[1]), Path(sys.argv[2]), bytes(range(32)), keccak(bytes(range(32))), told)
"""


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "plain").write_bytes(DATA)
    return write_sealed(tmp_path / "plain", tmp_path / "sealed", KEY)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets of the chunks that are written."""
    offsets: list[int] = []

    def count(descriptor: int, data: memoryview, offset: int) -> None:
        offsets.append(offset)
        write_at(descriptor, data, offset)

    monkeypatch.setattr("pouw.sealing.reader.write_at", count)
    return offsets


def killed_midway(sealed: Path, destination: Path) -> Path:
    """What ``open_file`` leaves when it is killed after three chunks were reported."""
    child = subprocess.Popen(
        [sys.executable, "-c", OPEN, str(sealed), str(destination)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for _ in range(3):
        child.stdout.readline()
        child.stdin.write(b".")
        child.stdin.flush()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    partial = destination.with_name(f".{destination.name}.part")
    assert partial.exists()
    assert not destination.exists()
    return partial


def test_open_file__killed_midway__keeps_what_was_there(
    sealed: Path, tmp_path: Path, written: list[int]
) -> None:
    back = tmp_path / "back"
    partial = killed_midway(sealed, back)
    data = partial.read_bytes()
    with SealedReader(sealed, KEY, HASH) as reader:
        places = [reader.place(index) for index in range(reader.chunks)]
    there = {
        place.plain
        for place in places
        if data[place.plain : place.plain + place.size]
        == DATA[place.plain : place.plain + place.size]
    }
    assert len(there) >= 3
    open_file(sealed, back, KEY, HASH)
    assert back.read_bytes() == DATA
    assert set(written) == {place.plain for place in places} - there
    assert not partial.exists()


def test_open_file__what_was_left_is_altered__is_written_again(
    sealed: Path, tmp_path: Path, written: list[int]
) -> None:
    back = tmp_path / "back"
    altered = bytearray(DATA + b"and more")
    altered[5 * CHUNK] ^= 1
    (tmp_path / ".back.part").write_bytes(altered)
    open_file(sealed, back, KEY, HASH)
    assert back.read_bytes() == DATA
    assert len(written) == 1


def test_open_file__altered_after_a_kill__is_refused_and_leaves_nothing(
    sealed: Path, tmp_path: Path
) -> None:
    back = tmp_path / "back"
    partial = killed_midway(sealed, back)
    data = bytearray(sealed.read_bytes())
    data[-1] ^= 1
    sealed.write_bytes(data)
    with pytest.raises(SealError, match="chunk 12"):
        open_file(sealed, back, KEY, HASH)
    assert not partial.exists()
    assert not back.exists()


def test_open_file__link_in_the_place_of_the_partial_file__is_not_followed(
    sealed: Path, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / ".back.part").symlink_to(tmp_path / "victim")
    with pytest.raises(SealError):
        open_file(sealed, tmp_path / "back", KEY, HASH)
    assert (tmp_path / "victim").read_bytes() == b"untouched"


def test_open_file__two_at_once__both_end_well(sealed: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"

    def meanwhile(_: int) -> None:
        if not back.exists():
            open_file(sealed, back, KEY, HASH)
            assert back.read_bytes() == DATA

    open_file(sealed, back, KEY, HASH, meanwhile)
    assert back.read_bytes() == DATA
    assert {path.name for path in tmp_path.iterdir()} == {"back", "plain", "sealed"}
