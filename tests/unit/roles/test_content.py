"""What a task names and no place has: the hint tells whose place is missing from --store."""

from __future__ import annotations

from pathlib import Path

import pytest

from pouw.documents import Archive
from pouw.errors import ContentNotFound
from pouw.hashing import raw_cid
from pouw.roles.content import fetch_archive, fetch_manifest, fetch_spec
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
