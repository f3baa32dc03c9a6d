"""Sealed files on disk, for tests."""

from __future__ import annotations

from pathlib import Path

from pouw.sealing import Sealing


def write_sealed(source: Path, destination: Path, key: bytes) -> Path:
    """Seal ``source`` as ``destination``."""
    with Sealing(source, key) as sealing:
        leaves = [bytes(sealing.leaf(index)) for index in range(sealing.leaves)]
        sealing.finish()
    destination.write_bytes(b"".join(leaves))
    return destination
