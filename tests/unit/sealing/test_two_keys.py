"""AES-GCM does not commit to its key: one sealed file that two keys open, and why it helps nobody.

The ciphertext is made, not found: for a fixed IV and header, the tag is linear over GF(2^128) in
every block of the ciphertext, so one free block solves "both keys give this tag".
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pouw.errors import WrongKey
from pouw.hashing import keccak
from pouw.sealing import SealedReader, open_file

KEYS = (b"the key that was committed......", b"the key that was kept for later.")
SALT = bytes(range(32))
BLOCKS = 4
HEADER = (
    b"POUWSEAL\1\0\0\0" + (1 << 20).to_bytes(4, "big") + (16 * BLOCKS).to_bytes(8, "big")
    + SALT + bytes(8)
)  # fmt: skip
IV = bytes(11) + b"\1"


def times(x: int, y: int) -> int:
    """The product in GCM's field, whose lowest power is the highest bit (SP 800-38D, 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if y >> bit & 1:
            product ^= x
        x = x >> 1 ^ (0xE1 << 120 if x & 1 else 0)
    return product


def power(x: int, exponent: int) -> int:
    result = 1 << 127
    for bit in f"{exponent:b}":
        result = times(result, result)
        if bit == "1":
            result = times(result, x)
    return result


def encrypt_block(key: bytes, block: bytes) -> int:
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return int.from_bytes(cipher.update(block), "big")


def tag_of(key: bytes, ciphertext: list[int]) -> int:
    """The tag of GCM over HEADER and ``ciphertext``, blocks as numbers."""
    hash_key = encrypt_block(key, bytes(16))
    header = [int.from_bytes(HEADER[start : start + 16], "big") for start in range(0, 64, 16)]
    total = 0
    for block in [*header, *ciphertext, len(HEADER) * 8 << 64 | len(ciphertext) * 128]:
        total = times(total ^ block, hash_key)
    return total ^ encrypt_block(key, IV + (1).to_bytes(4, "big"))


def two_key_file() -> bytes:
    """A sealed file of one chunk that both KEYS open."""
    keys = [HKDF(SHA256(), 32, SALT, b"pouw/seal/1").derive(key) for key in KEYS]
    blocks = [int.from_bytes(bytes([index]) * 16, "big") for index in range(1, BLOCKS)] + [0]
    difference = tag_of(keys[0], blocks) ^ tag_of(keys[1], blocks)
    factor = 0
    for key in keys:  # the last block is multiplied twice: by the lengths' step and its own
        factor ^= power(encrypt_block(key, bytes(16)), 2)
    blocks[-1] = times(difference, power(factor, 2**128 - 2))
    tags = [tag_of(key, blocks) for key in keys]
    assert tags[0] == tags[1]
    return HEADER + b"".join(block.to_bytes(16, "big") for block in [*blocks, tags[0]])


@pytest.fixture(scope="module")
def two_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two-keys") / "sealed"
    path.write_bytes(two_key_file())
    return path


def test_two_key_file__each_key_under_its_own_hash__opens_to_another_plaintext(
    two_keys: Path, tmp_path: Path
) -> None:
    for index, key in enumerate(KEYS):
        open_file(two_keys, tmp_path / f"{index}", key, keccak(key))
    first, second = (tmp_path / "0").read_bytes(), (tmp_path / "1").read_bytes()
    assert len(first) == len(second) == 16 * BLOCKS
    assert first != second


def test_two_key_file__second_key_under_the_committed_hash__is_refused(
    two_keys: Path, tmp_path: Path
) -> None:
    committed = keccak(KEYS[0])
    with pytest.raises(WrongKey, match=committed.hex()):
        open_file(two_keys, tmp_path / "plain", KEYS[1], committed)
    with pytest.raises(WrongKey):
        SealedReader(two_keys, KEYS[1], committed)
    assert not any(tmp_path.iterdir())
