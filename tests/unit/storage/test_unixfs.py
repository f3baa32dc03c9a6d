"""Inner blocks: what the profile does not allow is refused, whatever it hashes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pouw.errors import ContentMismatch, ContentTooLarge
from pouw.hashing import raw_cid, sha256
from pouw.storage.block import LEAF_BYTES, node_cid
from pouw.storage.unixfs import (
    WIDTH,
    Link,
    decode_node,
    encode_node,
    leaves,
    node_over,
    unique_blocks,
)

RAW = raw_cid(bytes(32))
FULL = Link(RAW, LEAF_BYTES, LEAF_BYTES, 0)
LAST = Link(RAW, 7, 7, 0)
PAIR = (FULL, LAST)


def decode(block: bytes, level: int | None = None) -> tuple[Link, ...]:
    return decode_node(node_cid(sha256(block)), block, level)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, WIDTH - 1), st.integers(1, LEAF_BYTES))
def test_decode_node__what_was_encoded__comes_back(full: int, last: int) -> None:
    links = (FULL,) * full + (Link(RAW, last, last, 0),)
    assert decode(encode_node(links)) == links


@settings(deadline=None, derandomize=True)
@given(st.data())
def test_decode_node__any_changed_byte__is_refused_or_another_file(data: st.DataObject) -> None:
    block = bytearray(encode_node(PAIR))
    index = data.draw(st.integers(0, len(block) - 1))
    block[index] ^= data.draw(st.integers(1, 255))
    try:
        links = decode(bytes(block))
    except ContentMismatch:
        return
    assert encode_node(links) == block
    assert links != PAIR


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_decode_node__noise__is_refused(noise: bytes) -> None:
    with pytest.raises(ContentMismatch, match="not a file node"):
        decode(noise)


ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "trailing byte": lambda block: block + b"\0",
    "cut off": lambda block: block[:-1],
    "data before links": lambda block: block[-18:] + block[:-18],
    "a directory": lambda block: block.replace(b"\x08\x02\x18", b"\x08\x01\x18"),
    "long varint": lambda block: block.replace(b"\x18\x07", b"\x18\x87\x00"),
    "a named link": lambda block: block.replace(b"\x12\x00", b"\x12\x01a", 1),
    "another hash": lambda block: block.replace(b"\x01\x55\x12\x20", b"\x01\x55\x13\x20"),
    "number of 70 bits": lambda block: block[:-1] + b"\xff" * 9 + b"\x01",
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED.keys())
def test_decode_node__other_encoding__is_refused(change: Callable[[bytes], bytes]) -> None:
    block = encode_node(PAIR)
    assert change(block) != block
    with pytest.raises(ContentMismatch):
        decode(change(block))


SHAPES: dict[str, tuple[Link, ...]] = {
    "no links": (),
    "one leaf": (FULL,),
    "short leaf in the middle": (FULL, LAST, FULL),
    "empty leaf": (FULL, Link(RAW, 0, 0, 0)),
    "leaf above 1 MiB": (FULL, Link(RAW, LEAF_BYTES + 1, LEAF_BYTES + 1, 0)),
    "more links than the width": (FULL,) * (WIDTH + 1),
    "node in the place of a leaf": (FULL, replace(LAST, cid=node_cid(bytes(32)))),
    "leaf with more than its size": (FULL, replace(LAST, total=8)),
}


@pytest.mark.parametrize("links", SHAPES.values(), ids=SHAPES.keys())
def test_decode_node__other_shape__is_refused(links: tuple[Link, ...]) -> None:
    with pytest.raises(ContentMismatch):
        decode(encode_node(links))


def test_decode_node__leaf_in_the_place_of_a_node__is_refused() -> None:
    inner, _ = node_over((FULL,) * WIDTH)
    bad = replace(inner, cid=RAW)
    with pytest.raises(ContentMismatch, match="link 0"):
        decode(encode_node((bad, bad)))


def tree_of(leaf_count: int) -> tuple[Link, dict[str, bytes]]:
    """A tree of two levels over full leaves: the root, and its nodes by CID."""
    blocks, links = {}, []
    for start in range(0, leaf_count, WIDTH):
        link, block = node_over((FULL,) * min(WIDTH, leaf_count - start))
        blocks[link.cid] = block
        links.append(link)
    root, block = node_over(tuple(links))
    blocks[root.cid] = block
    return root, blocks


def test_leaves__tree_of_two_levels__come_in_order_with_their_sizes() -> None:
    root, blocks = tree_of(WIDTH + 1)
    assert list(leaves(root.cid, root.size, blocks.__getitem__)) == [FULL] * (WIDTH + 1)


def test_unique_blocks__equal_leaves_and_nodes__come_once() -> None:
    root, blocks = tree_of(3 * WIDTH)
    found = [link.cid for link in unique_blocks(root.cid, blocks.__getitem__)]
    assert len(found) == 2
    assert found[0] == RAW


@pytest.mark.parametrize(("more", "error"), [(-1, ContentTooLarge), (1, ContentMismatch)])
def test_leaves__other_size_declared__fetches_no_leaf(more: int, error: type[Exception]) -> None:
    root, blocks = tree_of(WIDTH + 1)
    with pytest.raises(error, match="were declared"):
        next(leaves(root.cid, root.size + more, blocks.__getitem__))


def test_leaves__child_of_another_size_than_its_parent_says__is_refused() -> None:
    full, full_block = node_over((FULL,) * WIDTH)
    short, short_block = node_over(PAIR)
    lying = replace(short, size=8 + LEAF_BYTES)
    root, root_block = node_over((full, lying))
    blocks = {full.cid: full_block, short.cid: short_block, root.cid: root_block}
    with pytest.raises(ContentMismatch, match="its parent says") as caught:
        list(leaves(root.cid, root.size, blocks.__getitem__))
    assert caught.value.cid == short.cid
