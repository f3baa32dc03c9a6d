"""What a role must still know after a crash: one SQLite file in its private home.

Salts and manifests of commitments, the test keys of publishers, signed transactions with their
hashes, cursors over the chain: each is on the disk before anything that depends on it leaves the
machine. Values are JSON, kept under a key within a named space; a role's threads and processes may
share the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pouw.errors import JournalError
from pouw.files import Ballast, advice, sync

SCHEMA_VERSION: Final = 1
BUSY_SECONDS: Final = 30.0
SPARE_BYTES: Final = 1 << 20
BALLAST_BYTES: Final = 8 << 20
_SPARE: Final = "spare"
_CHECKPOINT_PAGES: Final = 128  # half of what the log has room for
_APPLICATION: Final = 0x506F5557
_SCHEMA: Final = """
CREATE TABLE entries (
  space TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (space, key)
) WITHOUT ROWID
"""


_DAMAGED: Final = (
    "keep the file and restore a copy: salts and keys in it open commitments and archives"
)
_HINTS: Final = {
    sqlite3.SQLITE_BUSY: "another process of this role is writing for long: stop it or wait",
    sqlite3.SQLITE_FULL: "the disk is full: free some space, then run the same again",
    sqlite3.SQLITE_READONLY: "check who owns the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "check who owns the file and its folder",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
# Begin, end and undo of an outer and of an inner transaction.
_STEPS: Final = (
    ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",)),
    ("SAVEPOINT inner", "RELEASE inner", ("ROLLBACK TO inner", "RELEASE inner")),
)


class Journal:
    """The journal at ``path``, made with mode 0600 where it is missing; JournalError on trouble.

    Every change is on the disk when its call, or the ``transaction`` around it, returns. Writers
    of other processes are waited for, ``busy_seconds`` at most. Open it after a fork, not before.

    ``damage``: what is wrong with it, where some of it can be read: a row that no key needs must
    not keep one in. Reading what is lost is a JournalError.

    The file and its log hold ``SPARE_BYTES`` that are not in use, so that a full disk keeps no key
    in; ``BALLAST_BYTES`` beside them are given up where it cannot be opened otherwise, or where
    ``make_room`` is asked for.
    """

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        self.damage: JournalError | None = None
        self._ballast = Ballast(path.with_name(f"{path.name}.ballast"), BALLAST_BYTES)
        try:
            self._open(busy_seconds)
        except JournalError:
            if not self.make_room():
                raise
            self._open(busy_seconds)
        self._ballast.take()

    def make_room(self) -> bool:
        """Give up the ballast where the disk is full; whether that was done."""
        return self._ballast.give_up()

    def _open(self, busy_seconds: float) -> None:
        try:
            _create(self.path)
        except OSError as error:
            raise JournalError(
                f"cannot make the journal {self.path}: {error.strerror}", hint=advice(error)
            ) from error
        with self._explained():
            self._connection = sqlite3.connect(
                self.path, timeout=busy_seconds, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare(time.monotonic() + busy_seconds)
        except BaseException:
            self._connection.close()
            raise

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
        """Close the file; further calls raise JournalError."""
        with self._lock, self._explained():
            self._connection.close()

    def put(self, space: str, key: str, value: Any) -> None:
        """Keep ``value`` under ``key``, in place of what was there.

        JournalError where it would not come back equal from JSON: bytes, tuples, keys that are
        not strings, numbers that are not finite.
        """
        self._execute(
            "INSERT INTO entries VALUES (?, ?, ?) "
            "ON CONFLICT (space, key) DO UPDATE SET value = excluded.value",
            (space, key, _to_json(value)),
        )

    def put_once(self, space: str, key: str, value: Any) -> Any:
        """Keep ``value`` unless there is one already; the value that is kept."""
        with self.transaction():
            self._execute(
                "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT (space, key) DO NOTHING",
                (space, key, _to_json(value)),
            )
            return self.get(space, key)

    def get(self, space: str, key: str, default: Any = None) -> Any:
        """The value under ``key``, or ``default``."""
        rows = self._execute("SELECT value FROM entries WHERE space = ? AND key = ?", (space, key))
        return json.loads(rows[0][0]) if rows else default

    def delete(self, space: str, key: str) -> None:
        """Forget the value under ``key``; no error where there is none."""
        self._execute("DELETE FROM entries WHERE space = ? AND key = ?", (space, key))

    def items(self, space: str) -> list[tuple[str, Any]]:
        """Every key of ``space`` with its value, by key."""
        rows = self._execute(
            "SELECT key, value FROM entries WHERE space = ? ORDER BY key", (space,)
        )
        return [(key, json.loads(value)) for key, value in rows]

    def spaces(self) -> set[str]:
        """The names of the spaces that hold anything."""
        return {row[0] for row in self._execute("SELECT DISTINCT space FROM entries")}

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes within the block or, after an error, none; other writers wait for its end.

        One within another is on the disk when the outer one ends.
        """
        with self._lock:
            begin, end, undo = _STEPS[self._depth > 0]
            self._execute(begin)
            self._depth += 1
            try:
                yield
                self._execute(end)
            except BaseException:
                if self._connection.in_transaction:
                    for step in undo:
                        self._execute(step)
                raise
            finally:
                self._depth -= 1

    def _prepare(self, deadline: float) -> None:
        self._check_identity()
        self._execute("PRAGMA synchronous = FULL")
        self._write_ahead(deadline)
        with self.transaction():
            if self._check_identity() == 0:
                self._execute(_SCHEMA)
                self._execute(f"PRAGMA application_id = {_APPLICATION}")
                self._execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        self.damage = self._find_damage()
        if self.damage is None:
            with contextlib.suppress(JournalError):  # the disk is full already
                self._set_aside()

    def _find_damage(self) -> JournalError | None:
        """What is wrong with the file, where it can be read at all."""
        try:
            problem = self._execute("PRAGMA quick_check(1)")[0][0]
        except JournalError as error:
            return error
        if problem == "ok":
            return None
        return JournalError(f"the journal {self.path} is damaged: {problem}", hint=_DAMAGED)

    def _set_aside(self) -> None:
        """Grow the file by pages that are free, and its log, which goes with the last process.

        In two steps: pages that were freed before they were written take no room.
        """
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.stat().st_size < SPARE_BYTES:
            self.put(_SPARE, "", "0" * SPARE_BYTES)
            self.delete(_SPARE, "")
            self._execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _check_identity(self) -> int:
        """The schema's version, 0 for a new file; JournalError where it is none of ours."""
        application = self._execute("PRAGMA application_id")[0][0]
        version = int(self._execute("PRAGMA user_version")[0][0])
        tables = self._execute("SELECT count(*) FROM sqlite_schema")[0][0]
        if application != _APPLICATION and (application or version or tables):
            raise JournalError(
                f"{self.path} is a database of another program",
                hint="name another home folder, or move that file away",
            )
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"the journal {self.path} has schema {version}, this pouw knows {SCHEMA_VERSION}",
                hint="update pouw",
            )
        return version

    def _write_ahead(self, deadline: float) -> None:
        """Switch to the write-ahead log; SQLite does not wait for others by itself here."""
        while True:
            try:
                self._execute("PRAGMA journal_mode = WAL")
            except JournalError as error:
                busy = isinstance(error.__cause__, sqlite3.OperationalError)
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _execute(self, statement: str, values: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._explained():
            return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # The low byte is the primary code (sqlite.org/rescode.html); misuse carries none.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            raise JournalError(
                f"the journal {self.path}: {error}", hint=_HINTS.get(code)
            ) from error


def _create(path: Path) -> None:
    """A file of mode 0600; never opened when it is there, which would drop SQLite's locks."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        sync(path.parent)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _to_json(value: Any) -> str:
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise JournalError(f"cannot be kept as JSON: {error}") from error
    if json.loads(text) != value:
        raise JournalError(
            "the value would come back from JSON as another one",
            hint="use lists for tuples, and strings for keys",
        )
    return text
