"""The bytes of a sealed file: AES-256-GCM in chunks (STREAM).

A sealed file is a header of 64 bytes and one or more chunks; integers are big-endian::

    offset  bytes  header
         0      8  "POUWSEAL"
         8      1  version = 1
         9      3  zero
        12      4  chunk size = 1,048,576
        16      8  length of the plaintext in bytes
        24     32  salt, random for every file
        56      8  zero

    file key = HKDF-SHA256(key, salt, info = "pouw/seal/1", 32 bytes)
    chunk i  = AES-256-GCM(file key, IV, AAD = the 64 header bytes), its tag of 16 bytes last
    IV       = 7 zero bytes | i as 4 bytes | 1 where chunk i is the last, else 0

Every chunk but the last ends on a multiple of 1,048,576 bytes of the file, so that one chunk is
one leaf of its CID: chunk 0, which shares its leaf with the header, carries 1,048,496 bytes of
plaintext, each further one 1,048,560, the last what is left. An empty plaintext has one empty
chunk. The size of the plaintext thus fixes the size of the sealed file, and any other is refused.

Index and last flag in the IV, and the header under every tag, are what finds truncation,
extension, reordering, splicing between files and a changed header. A file is opened chunk by
chunk, and no byte leaves before its chunk's tag was checked. AES-GCM does not commit to its key:
two keys can open one file (``tests/unit/sealing`` makes one). The hash on chain does commit, and
nothing is opened without it.

Test vector: key = 00 01 .. 1f, salt = 32 bytes a5, plaintext = "proof of useful work"::

    504f55575345414c 01 000000 00100000 0000000000000014 a5 x 32 0000000000000000
    1f8acdb92da7f16891a68c6c5ce7889da2970130    ciphertext
    f766ba5c82bba9f4502c1bb185ea61db            tag
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pouw.errors import SealError
from pouw.files import advice

MAGIC: Final = b"POUWSEAL"
VERSION: Final = 1
CHUNK_BYTES: Final = 1 << 20
HEADER_BYTES: Final = 64
TAG_BYTES: Final = 16
KEY_BYTES: Final = 32
_FIRST: Final = CHUNK_BYTES - HEADER_BYTES - TAG_BYTES
_NEXT: Final = CHUNK_BYTES - TAG_BYTES
_MAX_CHUNKS: Final = 1 << 32
_INFO: Final = b"pouw/seal/1"


def sealed_size(plaintext_bytes: int) -> int:
    """The size in bytes of the sealed file over ``plaintext_bytes``."""
    return Header(plaintext_bytes, bytes(32)).sealed_bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is: its offset in the plaintext and in the sealed file, its plaintext bytes."""

    plain: int
    sealed: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """The first 64 bytes: the length of the plaintext, and the salt."""

    length: int
    salt: bytes

    @property
    def chunks(self) -> int:
        """How many chunks there are, at least one."""
        return 1 + max(0, -(-(self.length - _FIRST) // _NEXT))

    @property
    def sealed_bytes(self) -> int:
        """The size of the sealed file."""
        return HEADER_BYTES + self.length + TAG_BYTES * self.chunks

    def place(self, index: int) -> Place:
        """Where chunk ``index`` is."""
        before = _FIRST + (index - 1) * _NEXT if index else 0
        size = min(_NEXT if index else _FIRST, self.length - before)
        return Place(before, index * CHUNK_BYTES or HEADER_BYTES, size)

    def encode(self) -> bytes:
        """The 64 bytes."""
        return (
            MAGIC
            + bytes([VERSION, 0, 0, 0])
            + CHUNK_BYTES.to_bytes(4, "big")
            + self.length.to_bytes(8, "big")
            + self.salt
            + bytes(8)
        )

    @classmethod
    def parse(cls, path: Path, data: bytes) -> Header:
        """The header ``data`` of the file ``path``; SealError where it is none."""
        header = cls(int.from_bytes(data[16:24], "big"), data[24:56])
        if header.encode() != data or header.chunks > _MAX_CHUNKS:
            if data[:8] == MAGIC and data[8:9] != bytes([VERSION]):
                raise SealError(
                    f"{path} is sealed in version {data[8:9].hex() or 'none'}, known is {VERSION}",
                    hint="update pouw",
                )
            raise SealError(
                f"{path} is not a sealed file of this format",
                hint="check the CID and fetch it again",
            )
        return header


class Chunks:
    """The ciphers of one sealed file's chunks."""

    def __init__(self, header: Header, key: bytes) -> None:
        self.header = header
        self.aad = header.encode()
        self._key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=header.salt, info=_INFO).derive(
            key
        )

    def encrypt(self, index: int, data: memoryview, size: int) -> bytes:
        """Put the ciphertext of chunk ``index`` in the place of the first ``size`` bytes; its tag.

        ``data`` is 15 bytes longer, as ``update_into`` asks. In place, because a core's cache holds
        one chunk, not two.
        """
        cipher = self._cipher(index).encryptor()
        cipher.authenticate_additional_data(self.aad)
        cipher.update_into(data[:size], data)
        cipher.finalize()
        return cipher.tag

    def decrypt(self, index: int, data: memoryview, size: int, tag: bytes) -> None:
        """Put the plaintext of chunk ``index`` in the place of ``data``, as ``encrypt`` does.

        InvalidTag where it is not authentic: what ``data`` holds then must not be used.
        """
        cipher = self._cipher(index).decryptor()
        cipher.authenticate_additional_data(self.aad)
        cipher.update_into(data[:size], data)
        cipher.finalize_with_tag(tag)

    def _cipher(self, index: int) -> Cipher[modes.GCM]:
        iv = bytes(7) + index.to_bytes(4, "big") + bytes([index == self.header.chunks - 1])
        return Cipher(algorithms.AES(self._key), modes.GCM(iv))


def check_length(key: bytes) -> None:
    """SealError where ``key`` is not of 32 bytes."""
    if len(key) != KEY_BYTES:
        raise SealError(f"a key has {KEY_BYTES} bytes, not {len(key)}")


def changed(path: Path) -> SealError:
    """The error about a file that something else writes to."""
    return SealError(
        f"{path} changed while it was read", hint="run the same again once nothing writes to it"
    )


@contextlib.contextmanager
def explained(*paths: Path) -> Iterator[None]:
    """Turns what the system says into a SealError."""
    try:
        yield
    except OSError as error:
        raise SealError(
            f"{error.filename or ' or '.join(map(str, paths))}: {error.strerror}",
            hint=advice(error),
        ) from error
