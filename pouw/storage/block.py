"""Blocks and the CIDs that name them: CIDv1, sha2-256, lower-case base32, raw or dag-pb."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from typing import Final, TypeVar

from pouw.errors import ContentError, ContentMismatch, ContentTooLarge
from pouw.hashing import raw_cid, sha256

Bytes = TypeVar("Bytes", bytes, memoryview)
Result = TypeVar("Result")

LEAF_BYTES: Final = 1 << 20
"""Size of a full leaf, and the most that any block may have."""

_RAW: Final = bytes.fromhex("01551220")
_NODE: Final = bytes.fromhex("01701220")


def cid_of_bytes(data: bytes) -> str:
    """The CID of ``data`` as one raw block; ContentTooLarge above 1 MiB."""
    check_block_size(len(data))
    return raw_cid(sha256(data))


def node_cid(digest: bytes) -> str:
    """The CID of the dag-pb block with that sha2-256 digest."""
    return text_of(_NODE + digest)


def text_of(binary: bytes) -> str:
    """The string form of a CIDv1 of 36 bytes; ContentError where it is of no kind used here."""
    if len(binary) != 36 or binary[:4] not in (_RAW, _NODE):
        raise ContentError(f"not a CIDv1 of a raw or dag-pb sha2-256 block: 0x{binary.hex()}")
    return "b" + base64.b32encode(binary).decode().lower().rstrip("=")


@functools.lru_cache(maxsize=1 << 14)
def cid_bytes(cid: str) -> bytes:
    """The 36 bytes behind ``cid``; ContentError where it is not exactly the string of a CID."""
    try:
        binary = base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8))
        if text_of(binary) == cid:
            return binary
    except (ContentError, ValueError):
        pass
    raise ContentError(
        f"not a base32 CIDv1 of a raw or dag-pb sha2-256 block: {cid!r}",
        cid=cid,
        hint="CIDs here have 59 characters and begin with bafk or bafy",
    )


def digest_of(cid: str) -> bytes:
    """The sha2-256 digest that ``cid`` names."""
    return cid_bytes(cid)[4:]


def is_raw(cid: str) -> bool:
    """Whether ``cid`` names a raw block: a document, a leaf, or a file of one leaf."""
    return cid_bytes(cid)[:4] == _RAW


def verify_block(cid: str, data: Bytes) -> Bytes:
    """``data`` itself, once it is known to hash to ``cid``; ContentMismatch otherwise."""
    found = sha256(data)
    if found != digest_of(cid):
        raise ContentMismatch(
            f"block {cid} is not what its CID says: {len(data)} bytes with sha2-256 {found.hex()}",
            cid=cid,
            hint="the copy is damaged or forged: fetch or add the content again",
        )
    return data


def check_block_size(size: int, cid: str | None = None) -> None:
    """ContentTooLarge where ``size`` bytes are more than one block holds."""
    if size > LEAF_BYTES:
        raise ContentTooLarge(
            f"{f'block {cid}' if cid else 'a block'} of {size} bytes, at most {LEAF_BYTES}",
            cid=cid,
            hint="add larger content as a file",
        )


def within(root: str, call: Callable[[str], Result]) -> Callable[[str], Result]:
    """``call``, its errors about a block naming the file ``root`` as well."""

    def named(cid: str) -> Result:
        try:
            return call(cid)
        except ContentError as error:
            if cid == root or error.cid != cid:
                raise
            raise type(error)(f"{error} (in file {root})", cid=cid, hint=error.hint) from error

    return named
