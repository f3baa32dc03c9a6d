"""CIDs: equality with npm's ``ipfs-unixfs-importer``, and what is refused as a CID."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pouw.documents import Cid
from pouw.errors import ContentError, ContentMismatch, ContentTooLarge
from pouw.hashing import raw_cid
from pouw.storage.block import cid_bytes, is_raw, node_cid, verify_block
from pouw.storage.cid import LEAF_BYTES, FileHasher, cid_of_bytes, cid_of_file
from pouw.storage.unixfs import WIDTH, Link, node_over

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("reference_cid.mjs")
LEAF = bytes(i * 7 % 251 for i in range(LEAF_BYTES))
SMALL = (0, 1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES + 5)
# Around 1,024 leaves, where the tree gets its second level.
LARGE = tuple(1024 * LEAF_BYTES + more for more in (-LEAF_BYTES, -1, 0, 1, LEAF_BYTES))
# What reference_cid.mjs --hash-once prints after some seconds: the third and the fourth level.
TEBIBYTE = [
    "bafybeiayuwxgbiibywfkqucbwoq6sgxj6natmjn5y33lrzowubvzuq4h3u",  # 1 << 40 bytes
    "bafybeigkcejgc64blgrwqu4tjawso2n6a6h6so5i43fejrm5cfyxfhk5cu",  # one more
]


def reference(*arguments: str, sizes: tuple[int, ...]) -> list[str]:
    node = shutil.which("node")
    if node is None or not (ROOT / "node_modules/ipfs-unixfs-importer").is_dir():
        reason = "needs node and `npm ci` for the independent implementation"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [node, str(SCRIPT), *arguments],
        input="".join(f"{size}\n" for size in sizes),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout.split()


def synthetic_cid(size: int) -> str:
    """The CID of the script's file of that size, its equal leaves hashed once."""
    hasher, digest = FileHasher(), hashlib.sha256(LEAF).digest()
    for _ in range(size // LEAF_BYTES):
        hasher.add_leaf(digest, LEAF_BYTES)
    hasher.update(LEAF[: size % LEAF_BYTES])
    return hasher.finish().cid


def test_cid_of_file__around_every_leaf_boundary__equals_the_importer(tmp_path: Path) -> None:
    path, found = tmp_path / "file", []
    for size in SMALL:
        path.write_bytes((LEAF * 4)[:size])
        found.append(cid_of_file(path))
    assert found == reference(sizes=SMALL)


def test_file_hasher__around_the_width_of_a_node__equals_the_importer() -> None:
    assert [synthetic_cid(size) for size in LARGE] == reference("--hash-once", sizes=LARGE)


def full_node(level: int) -> Link:
    """The node of that level over the script's full leaves."""
    if level == 0:
        return Link(cid_of_bytes(LEAF), LEAF_BYTES, LEAF_BYTES, 0)
    return node_over((full_node(level - 1),) * WIDTH)[0]


def test_node_over__around_a_tebibyte__equals_the_importer() -> None:
    spine = Link(cid_of_bytes(LEAF[:1]), 1, 1, 0)
    for _ in range(2):
        spine = node_over((spine,))[0]
    assert [full_node(2).cid, node_over((full_node(2), spine))[0].cid] == TEBIBYTE


def naive_root(links: list[Link]) -> str:
    """The balanced layout as the importer states it, level by level, of width 3."""
    if len(links) > 1:
        rows = [tuple(links[start : start + 3]) for start in range(0, len(links), 3)]
        return naive_root([node_over(row)[0] for row in rows])
    return links[0].cid


@pytest.mark.parametrize("count", range(1, 84))
def test_file_hasher__five_levels_of_a_narrow_tree__are_balanced(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.storage.cid.WIDTH", 3)
    hasher, links = FileHasher(), []
    for index in range(count):
        digest = index.to_bytes(32, "big")
        hasher.add_leaf(digest, LEAF_BYTES)
        links.append(Link(raw_cid(digest), LEAF_BYTES, LEAF_BYTES, 0))
    assert hasher.finish().cid == naive_root(links)


@pytest.mark.parametrize("piece", [1000, LEAF_BYTES - 1, 3 * LEAF_BYTES])
def test_file_hasher__any_cut_of_the_bytes__gives_one_cid(tmp_path: Path, piece: int) -> None:
    data = (LEAF * 3)[: 2 * LEAF_BYTES + 77]
    path = tmp_path / "file"
    path.write_bytes(data)
    hasher = FileHasher()
    for start in range(0, len(data), piece):
        hasher.update(memoryview(data)[start : start + piece])
    assert hasher.finish().cid == cid_of_file(path)


def test_file_hasher__nodes__come_once_each_with_the_root_last() -> None:
    nodes: list[tuple[str, bytes]] = []
    hasher, digest = FileHasher(lambda cid, block: nodes.append((cid, block))), bytes(32)
    for _ in range(1025):
        hasher.add_leaf(digest, LEAF_BYTES)
    root = hasher.finish()
    assert root.bytes == 1025 * LEAF_BYTES
    assert len(nodes) == 3
    assert nodes[-1][0] == root.cid
    for cid, block in nodes:
        verify_block(cid, block)


def test_file_hasher__leaf_after_a_short_one__is_refused() -> None:
    hasher = FileHasher()
    hasher.add_leaf(bytes(32), 5)
    with pytest.raises(ValueError, match="at 5"):
        hasher.add_leaf(bytes(32), LEAF_BYTES)
    with pytest.raises(ValueError, match="last"):
        hasher.update(b"more")


def test_cid_of_bytes__document__is_the_file_of_one_leaf(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"{}")
    assert cid_of_bytes(b"{}") == cid_of_file(path)
    assert is_raw(cid_of_bytes(b"{}"))


def test_cid_of_bytes__above_one_mebibyte__is_refused() -> None:
    assert cid_of_bytes(LEAF)
    with pytest.raises(ContentTooLarge, match="1048577 bytes"):
        cid_of_bytes(LEAF + b"\0")


def test_cid_of_file__missing_file__says_which(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="absent"):
        cid_of_file(tmp_path / "absent")


def test_verify_block__one_bit_changed__names_the_block() -> None:
    cid = cid_of_bytes(b"content")
    assert verify_block(cid, b"content") == b"content"
    with pytest.raises(ContentMismatch, match=cid) as caught:
        verify_block(cid, b"cont\x65\x6e\x75")
    assert caught.value.cid == cid


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "b",
        "Qm" + "a" * 44,
        cid_of_bytes(b"").upper(),
        cid_of_bytes(b"")[:-1],
        cid_of_bytes(b"") + "=",
        "z" + cid_of_bytes(b"")[1:],
        cid_of_bytes(b"")[:-1] + "v",  # the same 36 bytes with other padding bits
        "../../../../etc/passwd",
        "bafk\N{LATIN SMALL LETTER E WITH ACUTE}",
    ],
)
def test_cid_bytes__not_the_one_string_of_a_cid__is_refused(wrong: str) -> None:
    with pytest.raises(ContentError):
        cid_bytes(wrong)


def is_in_documents(text: str) -> bool:
    """Whether a document may hold ``text`` as a CID."""
    try:
        return TypeAdapter(Cid).validate_python(text, strict=True) == text
    except ValidationError:
        return False


def is_cid(text: str) -> bool:
    try:
        return bool(cid_bytes(text))
    except ContentError:
        return False


@given(st.binary(min_size=32, max_size=32), st.sampled_from((raw_cid, node_cid)))
def test_cid__of_any_digest__may_be_in_a_document(
    digest: bytes, of_digest: Callable[[bytes], str]
) -> None:
    assert is_in_documents(of_digest(digest))


@given(
    st.binary(min_size=32, max_size=32).map(raw_cid),
    st.integers(0, 58),
    st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789AQ=\n"),
)
def test_cid__one_letter_changed__may_be_in_a_document_only_if_it_is_still_a_cid(
    cid: str, place: int, letter: str
) -> None:
    text = cid[:place] + letter + cid[place + 1 :]
    assert is_in_documents(text) == is_cid(text)
    assert not is_in_documents(cid + letter)


@given(st.from_regex(Cid.__metadata__[0].pattern, fullmatch=True))
def test_cid__whatever_a_document_may_hold__is_a_cid(text: str) -> None:
    assert is_in_documents(text)
    assert is_cid(text)


@pytest.mark.parametrize("letter", "aq")
def test_cid__letters_that_name_no_block__are_refused(letter: str) -> None:
    assert not is_in_documents("b" + letter * 58)


def test_node_cid__is_no_raw_cid() -> None:
    assert not is_raw(node_cid(bytes(32)))
    assert cid_bytes(node_cid(bytes(32))) == b"\x01\x70\x12\x20" + bytes(32)
