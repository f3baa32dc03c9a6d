"""`pouw store` on a folder, over HTTP, and as a process that serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pouw.cli.adapters import local_store, open_store, role_store
from pouw.cli.main import main
from pouw.config import Settings
from pouw.errors import ConfigError, ContentNotFound
from pouw.storage.block import LEAF_BYTES
from pouw.storage.cid import cid_of_file
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors

SIZE = 2 * LEAF_BYTES + 5


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "source"
    path.write_bytes(Random(5).randbytes(SIZE))
    return path


def run(
    capsys: pytest.CaptureFixture[str], *words: str, code: int = 0, places: str = "content"
) -> dict[str, Any]:
    assert main(["store", *words, "--store", places, "--json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_store__add_ls_get__same_bytes_and_the_cid_of_the_profile(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = run(capsys, "add", "source")
    assert added == {"cid": cid_of_file(source), "bytes": SIZE, "pinned": True}
    assert run(capsys, "ls") == {"pins": [{"cid": added["cid"], "bytes": SIZE}]}
    assert run(capsys, "get", added["cid"], "--output", "back")["bytes"] == SIZE
    assert Path("back").read_bytes() == source.read_bytes()


def test_store_get__larger_than_allowed__is_refused_and_nothing_written(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cid = run(capsys, "add", "source")["cid"]
    words = ("get", cid, "--output", "back", "--max-bytes", str(SIZE - 1))
    assert "--max-bytes" in run(capsys, *words, code=1)["hint"]
    assert not Path("back").exists()


def test_store_verify__one_byte_changed__names_block_and_ends_with_2(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cid = run(capsys, "add", "source")["cid"]
    assert run(capsys, "verify") == {"checked": 1, "faults": []}
    store = LocalStore(Path("content"))
    block = next(path for path in (store.directory / "blocks").glob("*/bafk*"))
    block.write_bytes(b"x" + block.read_bytes()[1:])
    report = run(capsys, "verify", code=2)
    assert [fault["block"] for fault in report["faults"]] == [block.name]
    assert report["faults"][0]["cid"] == cid


def test_store_gc__only_what_no_pin_reaches__is_removed(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cid = run(capsys, "add", "source")["cid"]
    Path("other").write_bytes(b"not pinned")
    run(capsys, "add", "other", "--no-pin")
    assert run(capsys, "gc", "--grace", "0")["removed_blocks"] == 1
    run(capsys, "unpin", cid)
    assert run(capsys, "gc", "--grace", "0")["removed_blocks"] == 4
    assert run(capsys, "ls") == {"pins": []}


def test_store_gc__first_place_is_no_folder__says_so(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run(capsys, "gc", places="https://one.example,content", code=1)
    assert "--store FOLDER" in answer["hint"]


@pytest.mark.parametrize(
    ("command", "places"),
    [
        ("verify", "nostore"),
        ("verify", "content,nostore"),
        ("ls", "nostore"),
        ("gc", "nostore"),
        ("get", "nostore"),
        ("get", "content,nostore"),
        ("pin", "nostore"),
        ("unpin", "nostore"),
    ],
)
def test_store__folder_that_is_not_there__is_refused_and_not_made(
    source: Path, command: str, places: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cid = run(capsys, "add", "source")["cid"]
    words = (command,) if command in ("verify", "ls", "gc") else (command, cid)

    answer = run(capsys, *words, code=1, places=places)

    assert answer["error"] == "there is no store at nostore"
    assert "--store names" in answer["hint"]
    assert not Path("nostore").exists()


def test_store_serve__as_a_process__serves_pin_and_get_and_ends_by_a_signal(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cid = run(capsys, "add", "source")["cid"]
    command = [sys.executable, "-m", "pouw.cli.main", "store", "serve", "--store", "content"]
    with subprocess.Popen(
        [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            run(capsys, "pin", cid, places=f"mine,{url}")
            run(capsys, "get", cid, "--output", "back", places=url)
            assert run(capsys, "verify", cid, places=url) == {"checked": 1, "faults": []}
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert Path("back").read_bytes() == source.read_bytes()
    assert LocalStore(Path("mine")).pins() == {cid}
    LocalStore(Path("mine")).verify(cid)


def test_open_store__one_folder__is_that_folder_and_several_places_are_mirrors(
    tmp_path: Path,
) -> None:
    folder = str(tmp_path / "content")
    assert isinstance(open_store(Settings(store=(folder,))), LocalStore)
    several = open_store(Settings(store=(folder, "https://one.example")))
    assert isinstance(several, Mirrors)
    with pytest.raises(ConfigError, match="folder"):
        local_store(Settings(store=("https://one.example", folder)))


@pytest.mark.parametrize("place", ["ipfs:nonsense", "ipfs:", "http://", "https://host?x=1"])
def test_open_store__place_that_is_none__is_refused(place: str) -> None:
    with pytest.raises(ConfigError):
        open_store(Settings(store=(place,)))


def test_role_store__own_folder_damaged__is_missing_and_nobodys_fault(tmp_path: Path) -> None:
    own = LocalStore(tmp_path)
    cid = own.put_bytes(b"document")
    own.path_of(cid).write_bytes(b"damaged")
    with pytest.raises(ContentNotFound, match=str(own.path_of(cid))):
        role_store(Settings(store=(str(tmp_path),))).get_bytes(cid)
