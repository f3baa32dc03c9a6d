"""An arena's logs in SQLite: read once, followed from then on, taken back where the chain was.

The index holds what confirmed blocks said, with their hashes. Before it reads on it asks whether
the last of them still belong to the chain; what a reorganisation replaced is removed and read
again. It may be killed at any moment: a range of blocks is in it whole or not at all. It begins at
the earliest block that it was ever asked to begin at.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import astuple

from pouw.chain.logs import RawLog, event_of
from pouw.chain.ranges import LogReader
from pouw.chain.reading import ArenaReader
from pouw.chain.rpc import as_bytes
from pouw.errors import ChainUnavailable, JournalError
from pouw.events import Event

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS logs (
  block INTEGER NOT NULL,
  place INTEGER NOT NULL,
  block_hash BLOB NOT NULL,
  transaction_hash BLOB NOT NULL,
  words BLOB NOT NULL,
  PRIMARY KEY (block, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursor (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  block INTEGER NOT NULL,
  block_hash BLOB NOT NULL,
  width INTEGER NOT NULL,
  from_block INTEGER NOT NULL
);
"""
# An index of another form is read again.
_VERSION: Final = 2
_FORGET: Final = "DROP TABLE IF EXISTS logs; DROP TABLE IF EXISTS cursor;"
_WORD: Final = 32

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Synced:
    """What one sync did; ``block``: the last one that is in the index now, None for none.

    ``taken_back``: blocks that a reorganisation replaced.
    """

    block: int | None
    new_events: int
    taken_back: int


class EventIndex:
    """The events of one arena from ``from_block``, its deployment, on.

    ``folder`` may hold the indices of several arenas. JournalError where the file cannot be used.
    """

    def __init__(self, folder: Path, reader: ArenaReader, from_block: int) -> None:
        self.path = folder / f"index-{reader.chain_id}-{reader.address.lower()}.sqlite"
        self._reader, self._from_block = reader, from_block
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            # What a power cut takes is read again: the index is never ahead of itself.
            self._database.execute("PRAGMA synchronous = NORMAL")
            if self._database.execute("PRAGMA user_version").fetchone() != (_VERSION,):
                self._database.executescript(f"{_FORGET} PRAGMA user_version = {_VERSION};")
            self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @property
    def block(self) -> int | None:
        """The last block that is in the index."""
        cursor = self._cursor()
        return cursor[0] if cursor else None

    def sync(self, confirmations: int, progress: Progress | None = None) -> Synced:
        """Follow the chain up to its last confirmed block.

        ChainUnavailable where the endpoint does not answer, has no history as old as that, or is
        behind the index; what was read until then stays.
        """
        end = self._reader.confirmed_block(confirmations)
        self._begin_earlier()
        taken_back = self._take_back()
        cursor = self._cursor()
        begin = first = cursor[0] + 1 if cursor else self._from_block
        endpoint, address = self._reader.endpoint, self._reader.address
        reader = LogReader(endpoint, address, cursor[2]) if cursor else LogReader(endpoint, address)
        added = 0
        for last, logs in reader.read(first, end):
            self._append(last, self._same_chain(last, logs), logs, reader.width)
            added += len(logs)
            if progress is not None:
                progress(last + 1 - begin, end + 1 - begin)
        return Synced(self.block, added, taken_back)

    def events(self) -> Iterator[Event]:
        """All events in the order of the chain; memory does not grow with their number."""
        wrong = JournalError(
            f"the index {self.path} is damaged", hint="remove the file; it is read again"
        )
        with (
            self._explained(),
            closing(
                self._database.execute(
                    "SELECT block, place, block_hash, transaction_hash, words FROM logs "
                    "ORDER BY block, place"
                )
            ) as rows,
        ):
            for row in rows:
                yield event_of(RawLog(*row), wrong)

    def count(self) -> int:
        """How many events there are."""
        with self._explained():
            return int(self._database.execute("SELECT count(*) FROM logs").fetchone()[0])

    def _begin_earlier(self) -> None:
        """Forget an index that lacks the beginning which is asked for now."""
        cursor = self._cursor()
        if cursor is not None and cursor[3] > self._from_block:
            self._clear()

    def _same_chain(self, last: int, logs: list[RawLog]) -> bytes:
        """The hash of block ``last``; ChainUnavailable where ``logs`` are of another chain."""
        found = self._hash_of(last)
        if logs:
            number = logs[-1].block_number
            now = found if number == last else self._hash_of(number)
            if now != logs[-1].block_hash:
                raise ChainUnavailable(
                    f"the chain at {self._reader.endpoint.url} changed while it was read",
                    hint="run the same again; with more --confirmations it happens less often",
                )
        return found

    def _take_back(self) -> int:
        """Remove what is no longer part of the chain; how many blocks are to be read again."""
        cursor = self._cursor()
        if cursor is None:
            return 0
        block, block_hash, width, _ = cursor
        height = self._reader.endpoint.block_number()
        if height >= block and self._hash_of(block) == block_hash:
            return 0
        replaced = height >= block
        for known, known_hash in self._blocks(min(height, block)):
            if self._hash_of(known) == known_hash:
                if replaced:
                    self._cut(known, known_hash, width)
                    return block - known
                break
            replaced = True
        if not replaced:
            raise ChainUnavailable(
                f"{self._reader.endpoint.url} is at block {height}, the index at {block} already",
                hint="wait until it has caught up, or ask another endpoint",
            )
        self._clear()
        return block - self._from_block + 1

    def _append(self, last: int, last_hash: bytes, logs: list[RawLog], width: int) -> None:
        with self._transaction() as database:
            database.executemany("INSERT INTO logs VALUES (?, ?, ?, ?, ?)", map(astuple, logs))
            database.execute(
                "INSERT OR REPLACE INTO cursor VALUES (1, ?, ?, ?, ?)",
                (last, last_hash, width, self._first()),
            )

    def _cut(self, block: int, block_hash: bytes, width: int) -> None:
        """Forget everything after ``block``."""
        with self._transaction() as database:
            database.execute("DELETE FROM logs WHERE block > ?", (block,))
            database.execute(
                "INSERT OR REPLACE INTO cursor VALUES (1, ?, ?, ?, ?)",
                (block, block_hash, width, self._first()),
            )

    def _clear(self) -> None:
        with self._transaction() as database:
            database.execute("DELETE FROM logs")
            database.execute("DELETE FROM cursor")

    def _blocks(self, highest: int) -> list[tuple[int, bytes]]:
        """Blocks with logs and their hashes, the newest first."""
        with self._explained():
            return self._database.execute(
                "SELECT DISTINCT block, block_hash FROM logs WHERE block <= ? ORDER BY block DESC",
                (highest,),
            ).fetchall()

    def _first(self) -> int:
        """The block that the index begins at."""
        cursor = self._cursor()
        return cursor[3] if cursor else self._from_block

    def _cursor(self) -> tuple[int, bytes, int, int] | None:
        with self._explained():
            row: tuple[int, bytes, int, int] | None = self._database.execute(
                "SELECT block, block_hash, width, from_block FROM cursor"
            ).fetchone()
            return row

    def _hash_of(self, block: int) -> bytes:
        endpoint = self._reader.endpoint
        wrong = endpoint.malformed("eth_getBlockByNumber")
        return as_bytes(endpoint.block(block).get("hash"), wrong, _WORD)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise JournalError(
                f"cannot use the index {self.path}: {error}",
                hint="is the disk full? The file may be removed: it is read again",
            ) from error
