"""Sealed files: AES-256-GCM in chunks (STREAM), for any size in bounded memory.

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
two keys can open one file. The hash on chain does, so callers pass ``key_hash``.

Test vector: key = 00 01 .. 1f, salt = 32 bytes a5, plaintext = "proof of useful work"::

    504f55575345414c 01 000000 00100000 0000000000000014 a5 x 32 0000000000000000
    1f8acdb92da7f16891a68c6c5ce7889da2970130    ciphertext
    f766ba5c82bba9f4502c1bb185ea61db            tag
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pouw.errors import SealError, WrongKey
from pouw.files import advice, atomic_file
from pouw.hashing import keccak

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

OnBytes = Callable[[int], None]
"""Called with the number of plaintext bytes done since the call before."""


def new_test_key() -> bytes:
    """A fresh random key for a test archive; the data key follows from it."""
    return secrets.token_bytes(KEY_BYTES)


def check_key(key: bytes, key_hash: bytes) -> None:
    """WrongKey where ``key`` is not the one whose keccak-256 is ``key_hash``."""
    _check_length(key)
    if not hmac.compare_digest(keccak(key), key_hash):
        raise WrongKey(
            f"the key hashes to 0x{keccak(key).hex()}, committed was 0x{key_hash.hex()}",
            hint="use the key that was released on chain for this very task",
        )


def sealed_size(plaintext_bytes: int) -> int:
    """The size in bytes of the sealed file over ``plaintext_bytes``."""
    return HEADER_BYTES + plaintext_bytes + TAG_BYTES * _Header(plaintext_bytes, bytes(32)).chunks


def seal_file(source: Path, destination: Path, key: bytes, on_bytes: OnBytes | None = None) -> None:
    """Seal ``source`` under the 32-byte ``key`` as ``destination``, which appears when complete.

    SealError where a file cannot be read or written, or ``source`` changes meanwhile.
    """
    _check_length(key)
    with _explained(source, destination), source.open("rb", buffering=0) as plain:
        header = _Header(os.fstat(plain.fileno()).st_size, secrets.token_bytes(32))
        with atomic_file(destination) as sealed:
            sealed.write(header.encode())
            sealer = _Sealer(header, key)
            for index in range(header.chunks):
                chunk = sealer.seal(plain, index)
                sealed.write(chunk)
                if on_bytes is not None:
                    on_bytes(len(chunk) - TAG_BYTES)
            if plain.read(1):
                raise _changed(source)


def open_file(
    source: Path,
    destination: Path,
    key: bytes,
    key_hash: bytes | None = None,
    on_bytes: OnBytes | None = None,
) -> None:
    """Open the sealed file ``source`` as ``destination``, which appears when all was authentic.

    WrongKey where ``key`` does not hash to ``key_hash``; SealError where the file is not a sealed
    one, was changed in any way, or was sealed under another key.
    """
    with (
        SealedReader(source, key, key_hash) as reader,
        _explained(source, destination),
        atomic_file(destination) as plain,
    ):
        for index in range(reader.chunks):
            with reader.chunk(index) as view:
                plain.write(view)
                if on_bytes is not None:
                    on_bytes(len(view))


class SealedReader:
    """Random access to the chunks of a sealed file, for one thread.

    WrongKey where ``key`` does not hash to ``key_hash``; SealError where it is not a whole sealed
    file. Close it, or use it in a ``with`` statement.
    """

    def __init__(self, path: Path, key: bytes, key_hash: bytes | None = None) -> None:
        _check_length(key)
        if key_hash is not None:
            check_key(key, key_hash)
        self._path = path
        with contextlib.ExitStack() as stack, _explained(path):
            self._file = stack.enter_context(path.open("rb", buffering=0))
            self._header = _Header.parse(path, self._file.read(HEADER_BYTES))
            size = os.fstat(self._file.fileno()).st_size
            expected = sealed_size(self._header.length)
            if size != expected:
                raise SealError(
                    f"{path} has {size} bytes, its header announces {expected}: "
                    f"{'truncated' if size < expected else 'extended'}",
                    hint="fetch it again",
                )
            stack.pop_all()
        self._aad = self._header.encode()
        self._key = _file_key(key, self._header.salt)
        self._sealed = memoryview(bytearray(CHUNK_BYTES))
        self._plain = memoryview(bytearray(CHUNK_BYTES + TAG_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def chunks(self) -> int:
        """How many chunks there are, at least one."""
        return self._header.chunks

    @property
    def plaintext_bytes(self) -> int:
        """The length of the plaintext."""
        return self._header.length

    def read_chunk(self, index: int) -> bytes:
        """The authentic plaintext of chunk ``index`` (from 0); SealError where it is not."""
        with self.chunk(index) as view:
            return bytes(view)

    @contextlib.contextmanager
    def chunk(self, index: int) -> Iterator[memoryview]:
        """As ``read_chunk`` without a copy: a view that holds until the block ends."""
        if not 0 <= index < self.chunks:
            raise IndexError(f"chunk {index} of {self.chunks}")
        start, size = self._header.place(index)
        sealed = self._sealed[: size + TAG_BYTES]
        with _explained(self._path):
            if os.preadv(self._file.fileno(), [sealed], start) != len(sealed):
                raise _changed(self._path)
        cipher = _cipher(self._key, self._header, index).decryptor()
        cipher.authenticate_additional_data(self._aad)
        cipher.update_into(sealed[:size], self._plain)
        try:
            cipher.finalize_with_tag(bytes(sealed[size:]))
        except InvalidTag as error:
            raise SealError(
                f"chunk {index} of {self._path} does not open: another key, or altered bytes",
                hint="check that key and file belong together, and fetch the file again",
            ) from error
        with self._plain[:size].toreadonly() as view:
            yield view


class _Sealer:
    """Seals chunk after chunk into one buffer."""

    def __init__(self, header: _Header, key: bytes) -> None:
        self._header = header
        self._aad = header.encode()
        self._key = _file_key(key, header.salt)
        self._plain = memoryview(bytearray(CHUNK_BYTES))
        self._sealed = memoryview(bytearray(CHUNK_BYTES + TAG_BYTES))

    def seal(self, source: FileIO, index: int) -> memoryview:
        """Chunk ``index`` over the next bytes of ``source``; it holds until the next call."""
        _, size = self._header.place(index)
        plain = self._plain[:size]
        if source.readinto(plain) != size:
            raise _changed(Path(str(source.name)))
        cipher = _cipher(self._key, self._header, index).encryptor()
        cipher.authenticate_additional_data(self._aad)
        cipher.update_into(plain, self._sealed)
        cipher.finalize()
        self._sealed[size : size + TAG_BYTES] = cipher.tag
        return self._sealed[: size + TAG_BYTES]


@dataclass(frozen=True, slots=True)
class _Header:
    length: int
    salt: bytes

    @property
    def chunks(self) -> int:
        return 1 + max(0, -(-(self.length - _FIRST) // _NEXT))

    def place(self, index: int) -> tuple[int, int]:
        """Where chunk ``index`` begins in the sealed file, and its bytes of plaintext."""
        before = _FIRST + (index - 1) * _NEXT if index else 0
        size = min(_NEXT if index else _FIRST, self.length - before)
        return index * CHUNK_BYTES or HEADER_BYTES, size

    def encode(self) -> bytes:
        return (
            MAGIC
            + bytes([VERSION, 0, 0, 0])
            + CHUNK_BYTES.to_bytes(4, "big")
            + self.length.to_bytes(8, "big")
            + self.salt
            + bytes(8)
        )

    @classmethod
    def parse(cls, path: Path, data: bytes) -> _Header:
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


def _file_key(key: bytes, salt: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=_INFO).derive(key)


def _cipher(file_key: bytes, header: _Header, index: int) -> Cipher[modes.GCM]:
    last = index == header.chunks - 1
    return Cipher(
        algorithms.AES(file_key), modes.GCM(bytes(7) + index.to_bytes(4, "big") + bytes([last]))
    )


def _check_length(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise SealError(f"a key has {KEY_BYTES} bytes, not {len(key)}")


def _changed(path: Path) -> SealError:
    return SealError(
        f"{path} changed while it was read", hint="run the same again once nothing writes to it"
    )


@contextlib.contextmanager
def _explained(*paths: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SealError(
            f"{error.filename or ' or '.join(map(str, paths))}: {error.strerror}",
            hint=advice(error),
        ) from error
