"""What a task names and no place has: the hint tells whose place is missing from --store."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_task import tiny_spec

from pouw.documents import Archive
from pouw.errors import ContentError, ContentNotFound
from pouw.hashing import raw_cid
from pouw.roles.content import fetch_archive, fetch_manifest, fetch_spec, kept_spec
from pouw.storage.local import LocalStore

DIGEST = bytes(range(32))


@pytest.mark.parametrize(("fetch", "whose"), [(fetch_spec, "PUBLISHER"), (fetch_manifest, "MINER")])
def test_fetch__document_that_is_not_here__names_who_serves_it(
    tmp_path: Path, fetch: object, whose: str
) -> None:
    assert callable(fetch)
    with pytest.raises(ContentNotFound) as caught:
        fetch(LocalStore(tmp_path), DIGEST)
    assert caught.value.cid == raw_cid(DIGEST)
    assert f"--store pouw-store,http://{whose}:8088" in str(caught.value.hint)


def test_fetch_archive__that_is_not_here__names_the_publisher(tmp_path: Path) -> None:
    archive = Archive(cid=raw_cid(DIGEST), bytes=100, cases=1)
    with pytest.raises(ContentNotFound) as caught:
        fetch_archive(LocalStore(tmp_path / "store"), archive, tmp_path / "task")
    assert "http://PUBLISHER:8088" in str(caught.value.hint)
    assert not list((tmp_path / "task").iterdir())


def test_kept_spec__store_gone_after_the_first_fetch__is_the_same(tmp_path: Path) -> None:
    spec, store = tiny_spec(), LocalStore(tmp_path / "store")
    store.put_bytes(spec.encode())
    folder = tmp_path / "tasks" / "1"
    assert kept_spec(store, spec.digest(), folder) == spec
    assert kept_spec(LocalStore(tmp_path / "empty"), spec.digest(), folder) == spec


@pytest.mark.parametrize("damaged", [b"", b"{}", tiny_spec(title="Another task").encode()])
def test_kept_spec__kept_file_is_not_what_the_digest_says__is_fetched_again(
    tmp_path: Path, damaged: bytes
) -> None:
    spec, store = tiny_spec(), LocalStore(tmp_path / "store")
    (tmp_path / "spec.json").write_bytes(damaged)
    with pytest.raises(ContentNotFound):
        kept_spec(store, spec.digest(), tmp_path)
    store.put_bytes(spec.encode())
    assert kept_spec(store, spec.digest(), tmp_path) == spec
    assert (tmp_path / "spec.json").read_bytes() == spec.encode()


def test_kept_spec__folder_that_cannot_be_written__says_so(tmp_path: Path) -> None:
    spec, store = tiny_spec(), LocalStore(tmp_path / "store")
    store.put_bytes(spec.encode())
    (tmp_path / "file").touch()
    with pytest.raises(ContentError, match="cannot keep"):
        kept_spec(store, spec.digest(), tmp_path / "file" / "1")
