"""Full disks, failing writes, kills: real ones, in child processes, and what is left afterwards."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pouw.archive import pack
from pouw.errors import ContentError
from pouw.sealing import Sealing
from pouw.storage.block import LEAF_BYTES
from pouw.storage.local import LocalStore

MEBIBYTES = 6


def noise(size: int = MEBIBYTES * LEAF_BYTES, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def blocks(store: LocalStore) -> list[Path]:
    return [path for path in store.directory.glob("blocks/*/*") if path.suffix != ".part"]


def check_blocks(store: LocalStore) -> None:
    """Every block that shows is whole."""
    for path in blocks(store):
        store.get_block(path.name)


# Each writes a file of several MiB and prints the hint of the error that it gets.
WRITES = {
    "put": "store.put_file(given)",
    "seal": "store.put_leaves(Sealing(given, KEY))",
    "get": "whole.get_file(CID, out / 'got', SIZE)",
    "open": "open_file(sealed, out / 'opened', KEY, keccak(KEY))",
    "pack": "pack(given.parent, out / 'packed')",
    "unpack": "unpack(archive, out / 'unpacked', Limits(10, 1 << 30))",
}
SCRIPT = """
import resource, sys
from pathlib import Path
from pouw.archive import Limits, pack, unpack
from pouw.errors import PouwError
from pouw.hashing import keccak
from pouw.sealing import Sealing, open_file
from pouw.storage.local import LocalStore
prepared, out = Path(sys.argv[1]), Path(sys.argv[2])
given, sealed, archive = (prepared / name for name in ("in/file", "sealed", "archive"))
KEY, CID, SIZE = bytes(32), (prepared / "cid").read_text(), given.stat().st_size
whole, store = LocalStore(prepared / "whole"), LocalStore(out / "store")
if len(sys.argv) > 4:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
try:
    eval(sys.argv[3])
except PouwError as error:
    print(error.hint)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as it is given, sealed, packed and in a store."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "in").mkdir()
    (folder / "in" / "file").write_bytes(noise())
    with Sealing(folder / "in" / "file", bytes(32)) as sealing:
        parts = [bytes(sealing.leaf(index)) for index in range(sealing.leaves)]
    (folder / "sealed").write_bytes(b"".join(parts))
    pack(folder / "in", folder / "archive")
    (folder / "cid").write_text(LocalStore(folder / "whole").put_file(folder / "in" / "file").cid)
    return folder


def left(out: Path) -> list[Path]:
    """What was left beside the store, but for what can be taken up again."""
    return [path for path in out.iterdir() if path.name != "store" and path.suffix != ".part"]


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_write__cut_off_by_the_system__says_so_and_shows_nothing(
    prepared: Path, tmp_path: Path, write: str
) -> None:
    limit = LEAF_BYTES // 2 if "store." in write else 3 * LEAF_BYTES + 1000
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, prepared, tmp_path, write, str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "free some space" in done.stdout
    store = LocalStore(tmp_path / "store")
    check_blocks(store)
    assert len(blocks(store)) <= 1  # the short last leaf
    assert not left(tmp_path)


def can_mount() -> bool:
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(probe, capture_output=True, check=False).returncode
    )


FULL = """
mount -t tmpfs -o size=3m none "$3" &&
"$0" -c "$1" "$2" "$3" "$4" &&
find "$3" -type f -name '*[!k]' | grep -v -e '/lock$' | while read -r path; do
  echo "$(basename "$path") $(sha256sum < "$path")"
done
"""


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_write__disk_really_full__says_so_and_shows_whole_blocks_alone(
    prepared: Path, tmp_path: Path, write: str
) -> None:
    if not can_mount():
        pytest.skip("needs leave to mount a file system of its own")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL, sys.executable, SCRIPT, prepared, tmp_path, write],
        capture_output=True,
        text=True,
        check=False,
    )
    said, *shown = done.stdout.splitlines()
    assert "free some space" in said, done.stderr
    whole = LocalStore(prepared / "whole")
    for name, digest, _ in (line.split() for line in shown):
        assert name.startswith("bafk"), f"{name} was left behind"
        if write == WRITES["put"]:
            assert whole.has(name)
            assert len(digest) == 64
    assert bool(shown) == ("store." in write)


@pytest.mark.parametrize("failing", range(0, MEBIBYTES, 2))
def test_get_file__write_fails_on_the_way__leaves_what_was_there(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    whole, out, pwrite = LocalStore(prepared / "whole"), tmp_path / "out", os.pwrite
    out.write_bytes(b"before")

    def fail(descriptor: int, data: memoryview, offset: int) -> int:
        if offset == failing * LEAF_BYTES:
            raise OSError(5, os.strerror(5))
        return pwrite(descriptor, data[:1000], offset)

    cid, size = (prepared / "cid").read_text(), MEBIBYTES * LEAF_BYTES
    monkeypatch.setattr("os.pwrite", fail)
    with pytest.raises(ContentError, match="Input/output error"):
        whole.get_file(cid, out, size)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert out.read_bytes() == b"before"
    monkeypatch.setattr("os.pwrite", lambda file, data, offset: pwrite(file, data[:99_999], offset))
    whole.get_file(cid, out, size)
    assert out.read_bytes() == noise()


LIFE = {
    "writer": """
for seed in itertools.count(int(sys.argv[2])):
    path.write_bytes(random.Random(seed % 6).randbytes(3 << 20))
    cid = store.put_file(path).cid
    try:
        store.pin(cid)
    except ContentNotFound:  # collected between the two
        continue
    store.verify(cid)
""",
    "reader": """
while True:
    for cid in store.pins():
        store.get_file(cid, path, 3 << 20)
""",
    "collector": """
while True:
    store.gc(grace_seconds=0)
    for cid in list(store.pins())[1:]:
        store.verify(cid)
""",
}
PREFACE = """
import itertools, random, sys
from pathlib import Path
from pouw.errors import ContentNotFound
from pouw.storage.local import LocalStore
store, path = LocalStore(Path(sys.argv[1])), Path(sys.argv[1]).with_name(sys.argv[2])
print("ready", flush=True)
"""


def start(life: str, store: LocalStore, name: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PREFACE + life, store.directory, str(name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_store__processes_killed_again_and_again__no_block_is_ever_half(tmp_path: Path) -> None:
    store, moments = LocalStore(tmp_path / "store"), random.Random(3)
    lives = [LIFE["writer"], LIFE["writer"], LIFE["reader"], LIFE["collector"]]
    for attempt in range(3):
        children = [start(life, store, index) for index, life in enumerate(lives)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.1, 0.6))
        for child in children:
            child.send_signal(signal.SIGKILL)
        # None of them had died of an error before.
        errors = [child.communicate()[1] for child in children]
        assert [child.returncode for child in children] == [-signal.SIGKILL] * 4, errors
        check_blocks(store)
        for cid in store.pins():
            store.verify(cid)
        assert attempt == 0 or store.pins()
    store.gc(grace_seconds=0)
    assert not list(tmp_path.glob("store/blocks/*/*.part"))
    for cid in store.pins():
        store.verify(cid)
