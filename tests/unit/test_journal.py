"""The journal: durable, shared, private, and clear about damage."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pouw.errors import JournalError
from pouw.journal import SCHEMA_VERSION, SPARE_BYTES, Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "journal.db"


def test_put__any_json_value__comes_back(path: Path) -> None:
    value = {"salt": "0x00", "steps": [1, 2.5, None, True], "name": "\N{SNOWMAN}", "wei": 10**30}
    with Journal(path) as journal:
        journal.put("commitments", "1", value)
    with Journal(path) as journal:
        assert journal.get("commitments", "1") == value
        assert journal.get("commitments", "2") is None
        assert journal.get("cursors", "1", 7) == 7


def test_put__again__replaces(path: Path) -> None:
    with Journal(path) as journal:
        journal.put("cursors", "logs", 1)
        journal.put("cursors", "logs", 2)
        assert journal.items("cursors") == [("logs", 2)]


@pytest.mark.parametrize("value", [b"raw", (1, 2), {1: 2}, float("nan"), float("inf"), {1, 2}])
def test_put__value_that_json_would_change__is_refused(path: Path, value: Any) -> None:
    with Journal(path) as journal:
        with pytest.raises(JournalError, match="JSON"):
            journal.put("space", "key", value)
        assert journal.items("space") == []


def test_items__spaces__are_apart_and_sorted_by_key(path: Path) -> None:
    with Journal(path) as journal:
        for key in ("b", "a"):
            journal.put("one", key, key)
        journal.put("two", "c", 3)
        assert journal.items("one") == [("a", "a"), ("b", "b")]
        journal.delete("one", "a")
        journal.delete("one", "absent")
        assert journal.items("one") == [("b", "b")]
        assert journal.items("two") == [("c", 3)]


def test_put_once__value_there__is_kept(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.put_once("salts", "1", "first") == "first"
        assert journal.put_once("salts", "1", "second") == "first"
        assert journal.put_once("salts", "none", None) is None
        assert journal.put_once("salts", "none", 1) is None


def test_transaction__error_inside__changes_nothing(path: Path) -> None:
    def change(journal: Journal) -> None:
        with journal.transaction():
            journal.put("space", "new", 1)
            journal.delete("space", "kept")
            raise OSError("caller's own")

    with Journal(path) as journal:
        journal.put("space", "kept", 1)
        with pytest.raises(OSError, match="caller"):
            change(journal)
        assert journal.items("space") == [("kept", 1)]


def test_transaction__error_in_an_inner_one__undoes_the_inner_one_alone(path: Path) -> None:
    def change(journal: Journal) -> None:
        with journal.transaction():
            journal.put("space", "inner", 1)
            raise KeyError

    with Journal(path) as journal:
        with journal.transaction():
            journal.put("space", "outer", 1)
            with pytest.raises(KeyError):
                change(journal)
        assert journal.items("space") == [("outer", 1)]


def test_journal__new_or_found_open_to_others__is_private(path: Path) -> None:
    Journal(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with Journal(path) as journal:
        journal.put("space", "key", 1)
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_journal__settings__make_every_commit_durable(path: Path) -> None:
    with Journal(path) as journal:
        assert journal._execute("PRAGMA journal_mode") == [("wal",)]
        assert journal._execute("PRAGMA synchronous") == [(2,)]


def test_journal__newer_schema__says_to_update(path: Path) -> None:
    Journal(path).close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    raw.close()
    with pytest.raises(JournalError, match="schema 2") as caught:
        Journal(path)
    assert caught.value.hint == "update pouw"


def test_journal__database_of_another_program__is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE theirs (x)")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another program"):
        Journal(path)
    assert path.read_bytes() == before


def test_journal__not_a_database__says_so(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(JournalError, match="not a database") as caught:
        Journal(path)
    assert caught.value.hint is not None
    assert "restore" in caught.value.hint


def damage(path: Path, words: bytes) -> None:
    """Spoil the last page that holds these words: a leaf, since the root comes first."""
    data = bytearray(path.read_bytes())
    start = data.rindex(words) // 4096 * 4096
    data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)


def test_journal__page_damaged__the_rest_is_read_and_the_damage_told(path: Path) -> None:
    with Journal(path) as journal:
        journal.put("tasks", "ab", {"test_key": "07"})
        for index in range(3_000):
            journal.put("told", f"round {index}", True)
        assert journal.damage is None
    damage(path, b"told")

    with Journal(path) as journal:
        assert journal.damage is not None
        assert journal.items("tasks") == [("ab", {"test_key": "07"})]
        journal.put("outbox", "cd", "signed")
        assert journal.get("outbox", "cd") == "signed"
        with pytest.raises(JournalError) as caught:
            journal.items("told")
    assert caught.value.hint is not None
    assert "restore" in caught.value.hint


def test_journal__folder_in_place_of_the_file__says_so(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(JournalError, match=str(path)):
        Journal(path)


def test_journal__closed__refuses_further_calls(path: Path) -> None:
    journal = Journal(path)
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.get("space", "key")


def test_transaction__another_writer_for_too_long__says_so(path: Path) -> None:
    with Journal(path) as one, Journal(path, busy_seconds=0.05) as two:
        with one.transaction(), pytest.raises(JournalError, match="locked") as caught:
            two.put("space", "key", 1)
        assert caught.value.hint is not None
        assert "another process" in caught.value.hint
        two.put("space", "key", 2)
        assert one.get("space", "key") == 2


def test_put__disk_full__says_so_and_keeps_what_was_there(path: Path) -> None:
    with Journal(path) as journal:
        journal.put("space", "kept", 1)
        journal._execute("PRAGMA max_page_count = 4")
        with pytest.raises(JournalError, match="full") as caught:
            journal.put("space", "large", "x" * 2 * SPARE_BYTES)
        assert caught.value.hint is not None
        assert "free some space" in caught.value.hint
        assert journal.items("space") == [("kept", 1)]


def test_transaction__threads_of_one_journal__take_turns(path: Path) -> None:
    with Journal(path) as journal:

        def count() -> None:
            for _ in range(20):
                with journal.transaction():
                    journal.put("space", "count", journal.get("space", "count", 0) + 1)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.get("space", "count") == 80


COUNT = """
import sys
from pathlib import Path
from pouw.journal import Journal
with Journal(Path(sys.argv[1])) as journal:
    for _ in range(25):
        with journal.transaction():
            journal.put("space", "count", journal.get("space", "count", 0) + 1)
"""


def test_transaction__processes_that_start_with_no_file__take_turns(path: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", COUNT, str(path)]) for _ in range(4)]
    assert [child.wait(timeout=120) for child in children] == [0] * 4
    with Journal(path) as journal:
        assert journal.get("space", "count") == 100


ENDLESS = """
import sys
from pathlib import Path
from pouw.journal import Journal
journal = Journal(Path(sys.argv[1]))
index = 0
while True:
    with journal.transaction():
        journal.put("left", str(index), index)
        journal.put("right", str(index), index)
    print(index, flush=True)
    index += 1
"""


def test_put__killed_after_its_return__is_there_and_no_half_transaction(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    said = [int(child.stdout.readline()) for _ in range(20)]
    child.send_signal(signal.SIGKILL)
    said += [int(line) for line in child.stdout.read().split()]
    child.stdout.close()
    child.wait()
    with Journal(path) as journal:
        left = sorted(value for _, value in journal.items("left"))
        right = sorted(value for _, value in journal.items("right"))
    assert left == right
    assert left[: len(said)] == said
