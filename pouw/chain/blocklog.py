"""The devnet's memory on disk: one JSON line a block, enough to execute every block again.

The first line names the chain; every other line holds a block's timestamp, its raw transactions
and, where it has any, its hash. An empty block is written but not synced: it can be made again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pouw.errors import ChainError, ConfigError

SCHEMA: Final = "pouw/devnet/1"
_FILE: Final = "blocks.jsonl"


@dataclass(frozen=True, slots=True)
class SavedBlock:
    """What determines a block; ``digest`` is its hash, None where it was empty."""

    timestamp: int
    transactions: tuple[bytes, ...]
    digest: bytes | None


class BlockLog:
    """An append-only file, held by one process at a time."""

    def __init__(self, directory: Path, chain_id: int, genesis_timestamp: int) -> None:
        self._path = directory / _FILE
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ConfigError(f"cannot write {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise ConfigError(
                f"another devnet runs on {directory}", hint="stop it, or use another --data"
            ) from error
        try:
            self.genesis_timestamp = self._open(chain_id, genesis_timestamp)
        except (ChainError, ConfigError):
            self.close()
            raise

    def _open(self, chain_id: int, genesis_timestamp: int) -> int:
        """The timestamp of the genesis block: the file's, or of a file made now."""
        self._drop_torn_line()
        with self._path.open("rb") as file:
            first = file.readline()
        if not first:
            head = {"schema": SCHEMA, "chain_id": chain_id, "timestamp": genesis_timestamp}
            self._write(head, sync=True)
            return genesis_timestamp
        head = self._parse(first, 1)
        timestamp = head.get("timestamp")
        if head.get("schema") != SCHEMA or not isinstance(timestamp, int):
            raise ChainError(f"{self._path} was not written by pouw devnet")
        if head.get("chain_id") != chain_id:
            raise ConfigError(f"{self._path} is of chain {head.get('chain_id')}, not {chain_id}")
        return timestamp

    def _drop_torn_line(self) -> None:
        """Cut off a last line that a crash left without its end."""
        size = os.fstat(self._descriptor).st_size
        end = size
        while end > 0:
            start = max(0, end - (1 << 16))
            chunk = os.pread(self._descriptor, end - start, start)
            newline = chunk.rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            os.ftruncate(self._descriptor, end)

    def blocks(self) -> Iterator[SavedBlock]:
        """The saved blocks, oldest first; ChainError where a line is damaged."""
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    continue
                record = self._parse(line, number)
                try:
                    digest = record.get("hash")
                    yield SavedBlock(
                        int(record["timestamp"]),
                        tuple(bytes.fromhex(raw) for raw in record.get("transactions", ())),
                        None if digest is None else bytes.fromhex(digest),
                    )
                except (KeyError, TypeError, ValueError) as error:
                    raise self._damaged(number) from error

    def append(self, block: SavedBlock) -> None:
        """Write ``block``; on disk when this returns, unless it is empty."""
        record: dict[str, Any] = {"timestamp": block.timestamp}
        if block.digest is not None:
            record["transactions"] = [raw.hex() for raw in block.transactions]
            record["hash"] = block.digest.hex()
        self._write(record, sync=block.digest is not None)

    def _write(self, record: dict[str, Any], *, sync: bool) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            if os.write(self._descriptor, line) != len(line):
                raise ChainError(f"cannot write all of a block to {self._path}: disk full?")
            if sync:
                os.fdatasync(self._descriptor)
        except OSError as error:
            raise ChainError(f"cannot write {self._path}: {error.strerror}") from error

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise self._damaged(number) from error
        if not isinstance(record, dict):
            raise self._damaged(number)
        return record

    def _damaged(self, number: int) -> ChainError:
        return ChainError(
            f"{self._path}, line {number}, is damaged",
            hint="move the file away to begin a new chain",
        )

    def close(self) -> None:
        """Sync and let go of the file."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
