"""Downloads: resumed after a kill or an error, and nothing kept that was not verified."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pouw.errors import ContentError, ContentMismatch, ContentNotFound
from pouw.storage.assemble import write_file
from pouw.storage.block import LEAF_BYTES, cid_of_bytes, is_raw
from pouw.storage.cid import Stored
from pouw.storage.local import LocalStore

DATA = b"".join(index.to_bytes(8, "big") for index in range((12 * LEAF_BYTES + 24) // 8))
LEAVES = [DATA[start : start + LEAF_BYTES] for start in range(0, len(DATA), LEAF_BYTES)]


class Source:
    """A store from which leaves are fetched one by one, and counted."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalStore(folder / "source")
        (folder / "whole").write_bytes(DATA)
        self.file: Stored = self.store.put_file(folder / "whole")
        self.fetched: list[str] = []
        self.missing: set[str] = set()

    def fetch(self, cid: str) -> bytes:
        if cid in self.missing:
            raise ContentNotFound("nobody has it", cid=cid)
        if is_raw(cid):
            self.fetched.append(cid)
        return self.store.get_block(cid)

    def get(self, destination: Path, *, resume: bool = True) -> None:
        write_file(self.file.cid, destination, self.file.bytes, self.fetch, resume=resume)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def there(partial: Path) -> set[str]:
    """The CIDs of the leaves that lie at their places in a partial file."""
    data = partial.read_bytes()
    return {
        cid_of_bytes(leaf)
        for index, leaf in enumerate(LEAVES)
        if data[index * LEAF_BYTES :][: len(leaf)] == leaf
    }


GET = """
import sys
from pathlib import Path
from pouw.storage.assemble import write_file
from pouw.storage.local import LocalStore
def told(size):
    print(size, flush=True)
    sys.stdin.read(1)
fetch = LocalStore(Path(sys.argv[1])).get_block
write_file(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), fetch, resume=True, progress=told)
"""


def test_write_file__killed_midway__fetches_only_what_lacks(source: Source, tmp_path: Path) -> None:
    file, back = source.file, tmp_path / "back"
    child = subprocess.Popen(
        [sys.executable, "-c", GET, source.store.directory, file.cid, back, str(file.bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for _ in range(4):
        child.stdout.readline()
        child.stdin.write(b".")
        child.stdin.flush()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    partial = tmp_path / ".back.part"
    before = there(partial)
    assert len(before) >= 4
    assert not back.exists()
    source.get(back)
    assert back.read_bytes() == DATA
    assert set(source.fetched) == {cid_of_bytes(leaf) for leaf in LEAVES} - before
    assert not partial.exists()


def test_write_file__block_missing_at_first__goes_on_later(source: Source, tmp_path: Path) -> None:
    back, last = tmp_path / "back", cid_of_bytes(LEAVES[-1])
    source.missing = {last}
    with pytest.raises(ContentNotFound, match="nobody"):
        source.get(back)
    assert not back.exists()
    source.missing, source.fetched = set(), []
    source.get(back)
    assert source.fetched == [last]
    assert back.read_bytes() == DATA


def test_write_file__not_to_be_resumed__leaves_nothing(source: Source, tmp_path: Path) -> None:
    source.missing = {cid_of_bytes(LEAVES[-1])}
    out = tmp_path / "out"
    with pytest.raises(ContentNotFound):
        source.get(out / "back", resume=False)
    assert not any(out.iterdir())


def test_write_file__partial_file_altered__fetches_that_leaf_again(
    source: Source, tmp_path: Path
) -> None:
    altered = bytearray(DATA + b"and more")
    altered[5 * LEAF_BYTES + 7] ^= 1
    (tmp_path / ".back.part").write_bytes(altered)
    source.get(tmp_path / "back")
    assert source.fetched == [cid_of_bytes(LEAVES[5])]
    assert (tmp_path / "back").read_bytes() == DATA


def test_write_file__smaller_than_declared__fetches_and_leaves_nothing(
    source: Source, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ContentMismatch, match="declared"):
        write_file(source.file.cid, out / "back", len(DATA) + 1, source.fetch, resume=True)
    assert not source.fetched
    assert not any(out.iterdir())


def test_write_file__more_than_the_disk_holds__is_refused_before_a_leaf_is_fetched(
    source: Source, tmp_path: Path
) -> None:
    with pytest.raises(ContentError, match="No space left") as caught:
        write_file(source.file.cid, tmp_path / "back", 1 << 52, source.fetch, resume=True)
    assert "free some space" in (caught.value.hint or "")
    assert not source.fetched
    assert not (tmp_path / ".back.part").exists()


def test_write_file__every_leaf_done__is_told(source: Source, tmp_path: Path) -> None:
    told: list[int] = []
    write_file(source.file.cid, tmp_path / "back", len(DATA), source.fetch, progress=told.append)
    assert sum(told) == len(DATA)
    assert len(told) == len(LEAVES)
