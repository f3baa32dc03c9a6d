"""The local store: verified, atomic, deduplicating, and shared by processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pouw.errors import ContentError, ContentMismatch, ContentNotFound, ContentTooLarge
from pouw.storage.block import LEAF_BYTES, cid_of_bytes
from pouw.storage.cid import cid_of_file
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors
from pouw.storage.store import Store, copy

SIZES = (0, 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES + 5)


def content(size: int) -> bytes:
    """Bytes that differ from leaf to leaf."""
    return b"".join(index.to_bytes(8, "big") for index in range(size // 8 + 1))[:size]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(content(3 * LEAF_BYTES + 5))
    return path


def damage(path: Path) -> None:
    """Change one bit in the middle of a block."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def leaf_of(store: LocalStore, index: int) -> str:
    """The CID of a leaf of the fixture ``source``."""
    data = content(3 * LEAF_BYTES + 5)
    return cid_of_bytes(data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES])


def blocks(store: LocalStore) -> set[str]:
    return {path.name for path in store.directory.glob("blocks/*/*")}


@pytest.mark.parametrize("size", SIZES)
def test_get_file__what_was_put__comes_back(store: LocalStore, tmp_path: Path, size: int) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(content(size))
    stored = store.put_file(source)
    assert (stored.cid, stored.bytes) == (cid_of_file(source), size)
    assert store.has(stored.cid)
    store.get_file(stored.cid, back, size)
    assert back.read_bytes() == content(size)


def test_local_store__is_a_store(store: LocalStore) -> None:
    kept: Store = store
    assert kept.get_bytes(kept.put_bytes(b"{}")) == b"{}"


def test_put_bytes__above_one_mebibyte__is_refused(store: LocalStore) -> None:
    with pytest.raises(ContentTooLarge):
        store.put_bytes(bytes(LEAF_BYTES + 1))
    assert not blocks(store)


def test_get_bytes__above_the_limit__is_refused(store: LocalStore) -> None:
    cid = store.put_bytes(b"12345")
    assert store.get_bytes(cid, limit=5) == b"12345"
    with pytest.raises(ContentTooLarge, match="5 bytes, at most 4"):
        store.get_bytes(cid, limit=4)


def test_get_bytes__file_of_many_blocks__is_refused(store: LocalStore, source: Path) -> None:
    with pytest.raises(ContentMismatch, match="not a document"):
        store.get_bytes(store.put_file(source).cid)


def test_get_block__missing__says_what_to_do(store: LocalStore) -> None:
    with pytest.raises(ContentNotFound) as caught:
        store.get_block(cid_of_bytes(b"absent"))
    assert caught.value.cid == cid_of_bytes(b"absent")
    assert caught.value.hint


def test_put_block__bytes_of_another_cid__are_refused(store: LocalStore) -> None:
    with pytest.raises(ContentMismatch):
        store.put_block(cid_of_bytes(b"one"), b"two")
    assert not blocks(store)


def test_path_of__not_a_cid__is_refused(store: LocalStore) -> None:
    with pytest.raises(ContentError, match="not a base32"):
        store.path_of("../../etc/passwd")


@pytest.mark.parametrize(("more", "error"), [(-1, ContentTooLarge), (1, ContentMismatch)])
@pytest.mark.parametrize("size", [5, LEAF_BYTES + 5])
def test_get_file__other_size_declared__leaves_nothing(
    store: LocalStore, tmp_path: Path, size: int, more: int, error: type[ContentError]
) -> None:
    source, folder = tmp_path / "source", tmp_path / "out"
    source.write_bytes(content(size))
    cid = store.put_file(source).cid
    with pytest.raises(error, match="declared"):
        store.get_file(cid, folder / "back", size + more)
    assert not any(folder.iterdir())


def test_get_file__one_bit_changed__names_block_and_file_and_writes_nothing(
    store: LocalStore, source: Path, tmp_path: Path
) -> None:
    stored, bad = store.put_file(source), leaf_of(store, 1)
    damage(store.path_of(bad))
    out = tmp_path / "out" / "back"
    with pytest.raises(ContentMismatch, match=stored.cid) as caught:
        store.get_file(stored.cid, out, stored.bytes)
    assert caught.value.cid == bad
    assert str(store.path_of(bad)) in str(caught.value)
    assert not any(out.parent.iterdir())


def test_get_file__destination_there__is_replaced_only_by_the_whole(
    store: LocalStore, source: Path, tmp_path: Path
) -> None:
    stored, out = store.put_file(source), tmp_path / "back"
    out.write_bytes(b"before")
    store.path_of(leaf_of(store, 2)).unlink()
    with pytest.raises(ContentNotFound):
        store.get_file(stored.cid, out, stored.bytes)
    assert out.read_bytes() == b"before"
    store.put_file(source)
    store.get_file(stored.cid, out, stored.bytes)
    assert out.read_bytes() == source.read_bytes()


def test_verify__one_bit_changed__names_the_block_its_path_and_the_file(
    store: LocalStore, source: Path
) -> None:
    cid, bad = store.put_file(source).cid, leaf_of(store, 1)
    store.verify(cid)
    damage(store.path_of(bad))
    with pytest.raises(ContentMismatch) as caught:
        store.verify(cid)
    assert caught.value.cid == bad
    assert cid in str(caught.value)
    assert str(store.path_of(bad)) in str(caught.value)


def test_verify__document_changed__names_it(store: LocalStore) -> None:
    cid = store.put_bytes(b"document")
    damage(store.path_of(cid))
    with pytest.raises(ContentMismatch) as caught:
        store.verify(cid)
    assert caught.value.cid == cid
    assert str(store.path_of(cid)) in str(caught.value)


def test_mirrors__own_block_damaged__is_not_there_and_its_path_is_named(store: LocalStore) -> None:
    cid = store.put_bytes(b"document")
    damage(store.path_of(cid))
    with pytest.raises(ContentNotFound, match="is not what its CID says") as caught:
        Mirrors([("own", store)]).get_bytes(cid)
    assert caught.value.cid == cid
    assert str(store.path_of(cid)) in str(caught.value)


def test_faults__several_blocks_wrong_or_gone__names_each(store: LocalStore, source: Path) -> None:
    cid = store.put_file(source).cid
    damage(store.path_of(leaf_of(store, 0)))
    store.path_of(leaf_of(store, 3)).unlink()
    assert [type(error) for error in store.faults(cid)] == [ContentMismatch, ContentNotFound]
    assert [error.cid for error in store.faults(cid)] == [leaf_of(store, 0), leaf_of(store, 3)]


def test_faults__root_changed__names_the_root(store: LocalStore, source: Path) -> None:
    cid = store.put_file(source).cid
    damage(store.path_of(cid))
    assert [error.cid for error in store.faults(cid)] == [cid]
    assert not store.has(cid)


@pytest.mark.parametrize("index", [0, 3, None])
def test_has__any_block_gone_or_cut__is_false(
    store: LocalStore, source: Path, index: int | None
) -> None:
    cid = store.put_file(source).cid
    path = store.path_of(cid if index is None else leaf_of(store, index))
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert not store.has(cid)
    path.unlink()
    assert not store.has(cid)
    path.write_bytes(data)
    assert store.has(cid)


def test_has__not_a_cid__is_false(store: LocalStore) -> None:
    assert not store.has("b" + "q" * 58)


def test_pin__not_a_cid__is_refused(store: LocalStore) -> None:
    with pytest.raises(ContentError, match="not a base32"):
        store.pin("b" + "q" * 58)
    assert not store.pins()


def test_put_file__content_there_but_damaged__is_healed(store: LocalStore, source: Path) -> None:
    cid = store.put_file(source).cid
    damage(store.path_of(leaf_of(store, 1)))
    store.put_file(source)
    store.verify(cid)


def test_put_file__same_content_twice__is_kept_once(store: LocalStore, tmp_path: Path) -> None:
    source = tmp_path / "zeros"
    source.write_bytes(bytes(8 * LEAF_BYTES))
    first = store.put_file(source)
    inode = store.path_of(first.cid).stat().st_ino
    assert len(blocks(store)) == 2
    assert store.put_file(source) == first
    assert store.path_of(first.cid).stat().st_ino == inode


def test_gc__pinned_or_fresh__stays_and_the_rest_goes(store: LocalStore, source: Path) -> None:
    pinned, loose = store.put_file(source).cid, store.put_bytes(b"loose")
    abandoned = store.path_of(loose).with_name(".0000.part")
    abandoned.write_bytes(b"half")
    store.pin(pinned)
    assert store.pins() == {pinned}
    assert store.gc() == 0
    assert store.has(loose)
    assert store.gc(grace_seconds=0) == 1
    assert not store.has(loose)
    assert not abandoned.exists()
    store.verify(pinned)
    store.unpin(pinned)
    store.unpin(pinned)
    assert store.gc(grace_seconds=0) == 5
    assert not blocks(store)


def test_gc__put_again_lately__stays(store: LocalStore) -> None:
    cid = store.put_bytes(b"content")
    os.utime(store.path_of(cid), (0, 0))
    store.put_bytes(b"content")
    assert store.gc() == 0
    os.utime(store.path_of(cid), (0, 0))
    assert store.gc() == 1


def test_gc__tree_of_a_pin_damaged__removes_nothing(store: LocalStore, source: Path) -> None:
    cid = store.put_file(source).cid
    store.pin(cid)
    store.put_bytes(b"loose")
    damage(store.path_of(cid))
    before = blocks(store)
    with pytest.raises(ContentMismatch):
        store.gc(grace_seconds=0)
    assert blocks(store) == before


def test_pin__not_whole__is_refused(store: LocalStore, source: Path) -> None:
    cid = store.put_file(source).cid
    store.path_of(leaf_of(store, 0)).unlink()
    with pytest.raises(ContentNotFound, match="not wholly"):
        store.pin(cid)
    assert not store.pins()


@pytest.mark.parametrize("size", SIZES)
def test_copy__every_block__arrives(store: LocalStore, tmp_path: Path, size: int) -> None:
    source, other = tmp_path / "source", LocalStore(tmp_path / "other")
    source.write_bytes(content(size))
    cid = store.put_file(source).cid
    copy(cid, store, other)
    other.verify(cid)
    assert blocks(other) == blocks(store)


def test_copy__block_damaged_at_the_source__brings_no_root(
    store: LocalStore, source: Path, tmp_path: Path
) -> None:
    cid, other = store.put_file(source).cid, LocalStore(tmp_path / "other")
    damage(store.path_of(leaf_of(store, 1)))
    with pytest.raises(ContentMismatch, match=cid) as caught:
        copy(cid, store, other)
    assert caught.value.cid == leaf_of(store, 1)
    assert cid not in blocks(other)
    assert leaf_of(store, 1) not in blocks(other)


def test_take__folder_on_the_same_file_system__blocks_are_the_same_files_and_fresh(
    store: LocalStore, source: Path, tmp_path: Path
) -> None:
    """Whoever collects meanwhile must not take what was kept hours ago elsewhere for left over."""
    cid, document, other = store.put_file(source).cid, store.put_bytes(b"d"), tmp_path / "other"
    for block in blocks(store):
        os.utime(store.path_of(block), (0, 0))
    public = LocalStore(other)
    Mirrors([("own", public)]).take([cid, document], store)
    public.verify(cid)
    assert blocks(public) == blocks(store)
    assert all(public.path_of(one).samefile(store.path_of(one)) for one in blocks(store))
    assert public.gc() == 0


def test_take__another_file_system__blocks_are_copied(
    store: LocalStore, source: Path, tmp_path: Path
) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    cid = store.put_file(source).cid
    with tempfile.TemporaryDirectory(dir=elsewhere) as folder:
        public = LocalStore(Path(folder))
        public.take([cid], store)
        public.verify(cid)


def test_take__block_damaged_there__is_healed(
    store: LocalStore, source: Path, tmp_path: Path
) -> None:
    cid, public = store.put_file(source).cid, LocalStore(tmp_path / "other")
    public.put_file(source)
    damage(public.path_of(leaf_of(store, 1)))
    public.take([cid], store)
    public.verify(cid)
    store.verify(cid)


def test_take__block_damaged_at_the_source__is_refused(
    store: LocalStore, source: Path, tmp_path: Path
) -> None:
    cid, public = store.put_file(source).cid, LocalStore(tmp_path / "other")
    damage(store.path_of(leaf_of(store, 1)))
    with pytest.raises(ContentMismatch):
        public.take([cid], store)
    assert not public.has(cid)


def test_local_store__folder_that_cannot_be_made__says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ContentError, match="as a store"):
        LocalStore(tmp_path / "file" / "store")


def test_put_file__disk_full__says_so_and_shows_no_half_block(
    store: LocalStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ContentError, match="No space left") as caught:
        store.put_file(source)
    assert caught.value.hint is not None
    assert "free some space" in caught.value.hint
    assert not blocks(store)


def python(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


LIMITED = """
import resource, sys
from pathlib import Path
from pouw.errors import ContentError
from pouw.storage.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
try:
    store.put_bytes(bytes(1 << 20))
except ContentError as error:
    print(error.hint)
"""


def test_put_bytes__write_cut_off_by_the_system__shows_no_half_block(store: LocalStore) -> None:
    child = python(LIMITED, store.directory)
    said, _ = child.communicate(timeout=60)
    assert "free some space" in said
    assert not blocks(store)


PUT = """
import sys
from pathlib import Path
from pouw.storage.local import LocalStore
print("ready", flush=True)
for path in sys.argv[2:]:
    print(LocalStore(Path(sys.argv[1])).put_file(Path(path)).cid, flush=True)
"""


def test_put_file__four_processes_at_once__all_blocks_sound(
    store: LocalStore, source: Path
) -> None:
    children = [python(PUT, store.directory, *[source] * 5) for _ in range(4)]
    outputs = [child.communicate(timeout=120)[0].split()[1:] for child in children]
    cid = cid_of_file(source)
    assert outputs == [[cid] * 5] * 4
    store.verify(cid)
    assert len(blocks(store)) == 5


def test_put_file__killed_on_the_way__every_visible_block_is_sound(
    store: LocalStore, tmp_path: Path
) -> None:
    source = tmp_path / "large"
    source.write_bytes(os.urandom(64 * LEAF_BYTES))
    child = python(PUT, store.directory, source)
    deadline = time.monotonic() + 60
    while len(blocks(store)) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    visible = {name for name in blocks(store) if not name.endswith(".part")}
    assert visible
    for cid in visible:
        store.get_block(cid)
    cid = store.put_file(source).cid
    store.verify(cid)
