"""Sealed files: the layout by an independent reader, and every way to alter one."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sealed_files import write_sealed

from pouw.errors import SealError, WrongKey
from pouw.hashing import data_key_of, keccak, key_hash_of
from pouw.sealing import (
    SealedReader,
    Sealing,
    check_key,
    new_test_key,
    open_file,
    sealed_size,
)
from pouw.storage.cid import cid_of_file

ROOT = Path(__file__).parents[3]
KEY = bytes(range(32))
HASH = keccak(KEY)
CHUNK = 1 << 20
FIRST, NEXT = CHUNK - 64 - 16, CHUNK - 16
SIZES = (0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + NEXT, FIRST + NEXT + 1, 3 * CHUNK)
VECTOR = bytes.fromhex(
    "504f55575345414c 01 000000 00100000 0000000000000014"
    + "a5" * 32
    + "0000000000000000"
    + "1f8acdb92da7f16891a68c6c5ce7889da2970130"
    + "f766ba5c82bba9f4502c1bb185ea61db"
)


def plaintext(size: int) -> bytes:
    return hashlib.shake_128(b"plaintext").digest(size)


def sealed(folder: Path, data: bytes, key: bytes = KEY, name: str = "sealed") -> Path:
    (folder / "plain").write_bytes(data)
    return write_sealed(folder / "plain", folder / name, key)


def independent_open(data: bytes, key: bytes) -> bytes:
    """The module's docstring, read again from scratch with the one-shot cipher."""
    header, length = data[:64], int.from_bytes(data[16:24], "big")
    file_key = HKDF(SHA256(), 32, data[24:56], b"pouw/seal/1").derive(key)
    bounds = [64, *range(CHUNK, len(data), CHUNK), len(data)]
    pieces = []
    for index, (start, end) in enumerate(itertools.pairwise(bounds)):
        iv = bytes(7) + index.to_bytes(4, "big") + bytes([end == len(data)])
        pieces.append(AESGCM(file_key).decrypt(iv, data[start:end], header))
    plain = b"".join(pieces)
    assert len(plain) == length
    return plain


def test_open_file__vector_of_the_documentation__opens(tmp_path: Path) -> None:
    path = tmp_path / "vector"
    path.write_bytes(VECTOR)
    open_file(path, tmp_path / "plain", KEY, HASH)
    assert (tmp_path / "plain").read_bytes() == b"proof of useful work"


VECTORS = {
    b"proof of useful work": "bafkreigx2hgoicousxryu6pibzw3rkhix3bdwoaaio33gemtnyxrtbjafa",
    b"": "bafkreihm44c66nvrthzs7gjmsn4nbzusmx3hvs75vjzjk3arkzj24n64t4",
    bytes(1048497): "bafybeigg7jhvamfjwogni74n23ecmqno5a7dwhh6mash6qjgsie4bpldtu",
}


@pytest.mark.parametrize(("data", "cid"), VECTORS.items(), ids=map(len, VECTORS))
def test_sealing__vectors_of_the_documentation__are_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, cid: str
) -> None:
    monkeypatch.setattr("secrets.token_bytes", lambda size: b"\xa5" * size)
    path = sealed(tmp_path, data)
    assert cid_of_file(path) == cid
    assert independent_open(path.read_bytes(), KEY) == data
    ends = {min(end, path.stat().st_size) for end in (CHUNK, 2 * CHUNK)}
    documented = (ROOT / "docs/protocol.md").read_text()
    for expected in (cid, *(path.read_bytes()[end - 16 : end].hex() for end in ends)):
        assert f"`{expected}`" in documented


@pytest.mark.parametrize("size", SIZES)
def test_sealing__any_size__has_the_documented_layout(tmp_path: Path, size: int) -> None:
    path = sealed(tmp_path, plaintext(size))
    data = path.read_bytes()
    assert len(data) == sealed_size(size)
    assert data[:24] == b"POUWSEAL\1\0\0\0\0\x10\0\0" + size.to_bytes(8, "big")
    assert independent_open(data, KEY) == plaintext(size)


@pytest.mark.parametrize("size", SIZES)
def test_open_file__what_was_sealed__comes_back(tmp_path: Path, size: int) -> None:
    steps: list[int] = []
    path = sealed(tmp_path, plaintext(size))
    open_file(path, tmp_path / "back", KEY, HASH, steps.append)
    assert (tmp_path / "back").read_bytes() == plaintext(size)
    assert sum(steps) == size


@pytest.mark.parametrize("size", SIZES)
def test_sealing__leaves_in_any_order__are_the_documented_file(tmp_path: Path, size: int) -> None:
    (tmp_path / "plain").write_bytes(plaintext(size))
    with Sealing(tmp_path / "plain", KEY) as sealing:
        order = reversed(range(sealing.leaves))
        data = b"".join(reversed([bytes(sealing.leaf(index)) for index in order]))
        sealing.finish()
        assert len(data) == sealing.bytes == sealed_size(size)
    assert independent_open(data, KEY) == plaintext(size)


def test_sealing__leaf_asked_for_twice__is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"data")
    with Sealing(tmp_path / "plain", KEY) as sealing:
        sealing.leaf(0)
        for index in (0, -1, 1):
            with pytest.raises(ValueError, match="was given"):
                sealing.leaf(index)


def test_sealing__source_written_to_in_place__is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(b"data")
    os.utime(path, ns=(0, 0))
    with Sealing(path, KEY) as sealing:
        sealing.leaf(0)
        path.write_bytes(b"DATA")
        with pytest.raises(SealError, match="changed"):
            sealing.finish()


def test_sealing__same_file_twice__shares_no_byte_of_ciphertext(tmp_path: Path) -> None:
    one = sealed(tmp_path, plaintext(100), name="one").read_bytes()
    two = sealed(tmp_path, plaintext(100), name="two").read_bytes()
    assert one[24:56] != two[24:56]
    assert one[64:] != two[64:]


def test_read_chunk__any_order__gives_that_chunk(tmp_path: Path) -> None:
    data = plaintext(FIRST + NEXT + 10)
    with SealedReader(sealed(tmp_path, data), KEY, HASH) as reader:
        assert (reader.chunks, reader.plaintext_bytes) == (3, len(data))
        assert reader.read_chunk(2) == data[FIRST + NEXT :]
        assert reader.read_chunk(0) == data[:FIRST]
        assert reader.read_chunk(1) == data[FIRST : FIRST + NEXT]
        for outside in (-1, 3):
            with pytest.raises(IndexError):
                reader.read_chunk(outside)


def flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def with_length(data: bytes, length: int) -> bytes:
    return data[:16] + length.to_bytes(8, "big") + data[24:]


ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "magic": lambda data: flip(data, 0),
    "version": lambda data: flip(data, 8),
    "reserved": lambda data: flip(data, 10),
    "chunk size": lambda data: flip(data, 13),
    "length": lambda data: flip(data, 23),
    "salt": lambda data: flip(data, 24),
    "end of header": lambda data: flip(data, 63),
    "first ciphertext byte": lambda data: flip(data, 64),
    "first tag": lambda data: flip(data, CHUNK - 1),
    "middle chunk": lambda data: flip(data, CHUNK + 500),
    "last tag": lambda data: flip(data, len(data) - 1),
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "last chunk gone": lambda data: data[: 2 * CHUNK],
    "last chunk gone and length to match": lambda data: with_length(
        data[: 2 * CHUNK], FIRST + NEXT
    ),
    "last chunk twice": lambda data: with_length(
        data[: 2 * CHUNK] + data[CHUNK:], FIRST + 2 * NEXT + 10
    ),
    "chunks swapped": lambda data: (
        data[:CHUNK] + data[2 * CHUNK : 3 * CHUNK] + data[CHUNK : 2 * CHUNK] + data[3 * CHUNK :]
    ),
    "header only": lambda data: data[:64],
    "half a header": lambda data: data[:20],
    "empty": lambda data: b"",
    "length of 16 EiB": lambda data: with_length(data, 2**64 - 1),
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED.keys())
def test_open_file__altered__leaves_nothing(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = sealed(tmp_path, plaintext(FIRST + 2 * NEXT + 10))
    path.write_bytes(change(path.read_bytes()))
    out = tmp_path / "out"
    with pytest.raises(SealError):
        open_file(path, out / "plain", KEY, HASH)
    assert not out.exists() or not any(out.iterdir())


def test_open_file__chunk_of_another_file_under_the_same_key__is_refused(tmp_path: Path) -> None:
    one = sealed(tmp_path, plaintext(FIRST + 50), name="one")
    two = sealed(tmp_path, plaintext(FIRST + 50), name="two")
    two.write_bytes(two.read_bytes()[:CHUNK] + one.read_bytes()[CHUNK:])
    with pytest.raises(SealError, match="chunk 1"):
        open_file(two, tmp_path / "back", KEY, HASH)
    assert not (tmp_path / "back").exists()


def test_read_chunk__other_chunks_altered__still_opens(tmp_path: Path) -> None:
    data = plaintext(FIRST + NEXT)
    path = sealed(tmp_path, data)
    path.write_bytes(flip(path.read_bytes(), 100))
    with SealedReader(path, KEY, HASH) as reader:
        assert reader.read_chunk(1) == data[FIRST:]
        with pytest.raises(SealError, match="chunk 0"):
            reader.read_chunk(0)


def test_open_file__another_key__is_refused(tmp_path: Path) -> None:
    path, other = sealed(tmp_path, b"data"), bytes(32)
    with pytest.raises(SealError, match="does not open"):
        open_file(path, tmp_path / "back", other, keccak(other))
    with pytest.raises(WrongKey, match=HASH.hex()):
        open_file(path, tmp_path / "back", other, HASH)
    with pytest.raises(WrongKey):
        SealedReader(path, other, HASH)
    assert not (tmp_path / "back").exists()


def test_check_key__the_two_chained_keys__match_their_hashes() -> None:
    test_key = new_test_key()
    check_key(test_key, data_key_of(test_key))
    check_key(data_key_of(test_key), key_hash_of(test_key))
    with pytest.raises(WrongKey):
        check_key(test_key, key_hash_of(test_key))


def test_new_test_key__drawn_twice__differs() -> None:
    assert len(new_test_key()) == 32
    assert new_test_key() != new_test_key()


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_sealing__key_of_another_length__is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(SealError, match="32 bytes"):
        sealed(tmp_path, b"data", bytes(length))


def test_sealing__source_missing__says_which(tmp_path: Path) -> None:
    with pytest.raises(SealError, match="absent"):
        Sealing(tmp_path / "absent", KEY)


def take_the_rest(sealing: Sealing) -> None:
    for index in range(1, sealing.leaves):
        sealing.leaf(index)
    sealing.finish()


@pytest.mark.parametrize("size", [FIRST - 10, FIRST + 10, 2 * CHUNK - 1, 2 * CHUNK + 1])
def test_sealing__source_grows_or_shrinks_meanwhile__is_refused(tmp_path: Path, size: int) -> None:
    source = tmp_path / "plain"
    source.write_bytes(plaintext(2 * CHUNK))
    with Sealing(source, KEY) as sealing:
        sealing.leaf(0)
        os.truncate(source, size)
        with pytest.raises(SealError, match="changed"):
            take_the_rest(sealing)


def test_sealing__every_leaf_made__tells_its_plaintext_bytes(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(plaintext(FIRST + 5))
    told: list[int] = []
    with Sealing(tmp_path / "plain", KEY, told.append) as sealing:
        sealing.leaf(1)
        sealing.leaf(0)
    assert told == [5, FIRST]


MEMORY = """
import re
import sys
from pathlib import Path
from pouw.hashing import keccak
from pouw.sealing import Sealing, open_file
from pouw.storage.local import LocalStore
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
folder = Path(sys.argv[1])
store = LocalStore(folder / "store")
before = peak()
with Sealing(folder / "plain", bytes(32)) as sealing:
    stored = store.put_leaves(sealing)
store.get_file(stored.cid, folder / "sealed", stored.bytes)
open_file(folder / "sealed", folder / "back", bytes(32), keccak(bytes(32)))
print(peak() - before)
"""


def test_sealing__seal_keep_get_and_open_128_mebibytes__takes_48_of_memory(tmp_path: Path) -> None:
    with (tmp_path / "plain").open("wb") as file:
        file.truncate(128 << 20)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    kibibytes = int(done.stdout)
    assert 1 << 10 < kibibytes < 48 << 10
