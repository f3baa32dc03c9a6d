"""Keys, and the hashes on chain that commit to them."""

from __future__ import annotations

import hmac
import secrets

from pouw.errors import WrongKey
from pouw.hashing import keccak
from pouw.sealing.layout import KEY_BYTES, check_length


def new_test_key() -> bytes:
    """A fresh random key for a test archive; the data key follows from it."""
    return secrets.token_bytes(KEY_BYTES)


def check_key(key: bytes, key_hash: bytes) -> None:
    """WrongKey where ``key`` is not the one whose keccak-256 is ``key_hash``."""
    check_length(key)
    if not hmac.compare_digest(keccak(key), key_hash):
        raise WrongKey(
            f"the key hashes to 0x{keccak(key).hex()}, committed was 0x{key_hash.hex()}",
            hint="use the key that was released on chain for this very task",
        )
