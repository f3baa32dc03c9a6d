"""Sealed files: AES-256-GCM in chunks, in parallel and bounded memory at any size.

``layout`` states the bytes; ``Sealing`` makes them leaf by leaf, so that a store seals, hashes and
keeps an archive in one pass; ``SealedReader`` opens any chunk; ``open_file`` opens all of them, and
goes on where it was killed.
"""

from pouw.sealing.keys import check_key, new_test_key
from pouw.sealing.layout import CHUNK_BYTES, KEY_BYTES, sealed_size
from pouw.sealing.reader import OnBytes, SealedReader, open_file
from pouw.sealing.sealer import Sealing

__all__ = [
    "CHUNK_BYTES",
    "KEY_BYTES",
    "OnBytes",
    "SealedReader",
    "Sealing",
    "check_key",
    "new_test_key",
    "open_file",
    "sealed_size",
]
