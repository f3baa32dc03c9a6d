"""The inner blocks of a file under the profile ``unixfs-v1-2025``, and the shape of its tree.

A file is cut into leaves of 1 MiB (raw blocks). One leaf is its own root. Otherwise up to 1,024
neighbours hang under one dag-pb node, level by level, until one node is left: so the size of a
file alone fixes the shape of its tree, and a node is decoded by reading its links, encoding them
again and comparing, which leaves no room for anything outside the profile.

A node is a protobuf ``PBNode`` with its links first, each ``{Hash, Name = "", Tsize}``, then
``Data``: a UnixFS message ``{Type = File, filesize, blocksizes...}`` (specs.ipfs.tech, UnixFS).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pouw.errors import ContentError, ContentMisdeclared, ContentMismatch, ContentTooLarge
from pouw.hashing import sha256
from pouw.storage.block import LEAF_BYTES, cid_bytes, is_raw, node_cid, text_of

WIDTH: Final = 1024
MAX_FILE_BYTES: Final = 1 << 53
MAX_NODE_BYTES: Final = 1 << 17

Fetch = Callable[[str], bytes | memoryview]
"""The verified bytes of the block with that CID; they hold until the same thread fetches again."""


@dataclass(frozen=True, slots=True)
class Link:
    """A block of a file: ``size`` file bytes below it, ``total`` with the nodes among them."""

    cid: str
    size: int
    total: int
    level: int


def encode_node(links: tuple[Link, ...]) -> bytes:
    """The dag-pb block over ``links``."""
    parts = []
    for link in links:
        body = b"\x0a\x24" + cid_bytes(link.cid) + b"\x12\x00\x18" + _varint(link.total)
        parts.append(b"\x12" + _varint(len(body)) + body)
    sizes = b"".join(b"\x20" + _varint(link.size) for link in links)
    data = b"\x08\x02\x18" + _varint(sum(link.size for link in links)) + sizes
    return b"".join(parts) + b"\x0a" + _varint(len(data)) + data


def decode_node(cid: str, data: bytes | memoryview, level: int | None = None) -> tuple[Link, ...]:
    """The links of the node ``data`` at ``level`` (None: a root); ContentMismatch if not one."""
    try:
        data = bytes(data)
        links, level = _read_links(data, level)
        _check_shape(links, level)
        _check_canonical(links, data)
    except (IndexError, ValueError, ContentError) as error:
        raise ContentMismatch(
            f"block {cid} is not a file node of the profile unixfs-v1-2025: {error}",
            cid=cid,
            hint="add the file again with 1 MiB chunks, raw leaves and links of width 1024",
        ) from error
    return links


def leaves(root: str, size: int, fetch: Fetch) -> Iterator[Link]:
    """Every leaf of the file ``root`` of exactly ``size`` bytes, in order.

    Nodes are fetched as they are needed. ContentTooLarge or ContentMismatch where the file is of
    another size than declared, before its first leaf.
    """
    if is_raw(root):
        if size > LEAF_BYTES:
            raise ContentMisdeclared(
                f"{root} is one block of at most 1 MiB, declared with {size} bytes", cid=root
            )
        yield Link(root, size, size, 0)
        return
    links = decode_node(root, fetch(root))
    found = sum(link.size for link in links)
    if found > size:
        raise ContentTooLarge(f"{root} holds {found} bytes, {size} were declared", cid=root)
    if found < size:
        raise ContentMisdeclared(f"{root} holds {found} bytes, {size} were declared", cid=root)
    for link in links:
        yield from _leaves_below(link, fetch)


def file_bytes(root: str, fetch: Fetch) -> int:
    """The size of the file ``root``, from its first block."""
    data = fetch(root)
    return len(data) if is_raw(root) else sum(link.size for link in decode_node(root, data))


def unique_blocks(root: str, fetch: Fetch) -> Iterator[Link]:
    """Every block below the node ``root``, once each, children before their parent."""
    seen: set[tuple[str, int]] = set()
    for link in decode_node(root, fetch(root)):
        yield from _unique_below(link, fetch, seen)


def node_over(links: tuple[Link, ...]) -> tuple[Link, bytes]:
    """The node over ``links`` of one level: the link to it, and its block."""
    block = encode_node(links)
    size = sum(link.size for link in links)
    total = len(block) + sum(link.total for link in links)
    return Link(node_cid(sha256(block)), size, total, links[0].level + 1), block


def _leaves_below(link: Link, fetch: Fetch) -> Iterator[Link]:
    if link.level == 0:
        yield link
        return
    for child in _children(link, fetch):
        yield from _leaves_below(child, fetch)


def _unique_below(link: Link, fetch: Fetch, seen: set[tuple[str, int]]) -> Iterator[Link]:
    if (link.cid, link.level) in seen:
        return
    seen.add((link.cid, link.level))
    if link.level:
        for child in _children(link, fetch):
            yield from _unique_below(child, fetch, seen)
    yield link


def _children(link: Link, fetch: Fetch) -> tuple[Link, ...]:
    data = fetch(link.cid)
    links = decode_node(link.cid, data, link.level)
    size = sum(child.size for child in links)
    total = len(data) + sum(child.total for child in links)
    if (size, total) != (link.size, link.total):
        raise ContentMismatch(
            f"block {link.cid} is over {size} bytes ({total} with nodes), "
            f"its parent says {link.size} ({link.total})",
            cid=link.cid,
        )
    return links


def _span(level: int) -> int:
    """File bytes below a full block of that level."""
    return int(LEAF_BYTES * WIDTH**level)


def _check_shape(links: tuple[Link, ...], level: int) -> None:
    size = sum(link.size for link in links)
    if not 1 <= size <= min(MAX_FILE_BYTES, _span(level)):
        raise ValueError(f"{size} bytes at level {level}")
    full = _span(level - 1)
    if len(links) != -(-size // full):
        raise ValueError(f"{len(links)} links over {size} bytes")
    for index, link in enumerate(links):
        if link.size != min(full, size - index * full):
            raise ValueError(f"link {index} is over {link.size} bytes")
        if is_raw(link.cid) != (level == 1) or (level == 1 and link.total != link.size):
            raise ValueError(f"link {index} is not of level {level - 1}")


def _check_canonical(links: tuple[Link, ...], data: bytes) -> None:
    if len(data) > MAX_NODE_BYTES or encode_node(links) != data:
        raise ValueError("not the canonical encoding of a file node")


def _read_links(data: bytes, level: int | None) -> tuple[tuple[Link, ...], int]:
    """Links and level as written; what is not canonical shows when they are encoded again."""
    cids, totals, sizes, position = [], [], [], 0
    while data[position] == 0x12:
        length, position = _read_varint(data, position + 1)
        cids.append(text_of(data[position + 2 : position + 38]))
        totals.append(_read_varint(data, position + 41)[0])
        position += length
    _, position = _read_varint(data, position + 1)
    size, position = _read_varint(data, position + 3)
    while position < len(data):
        child, position = _read_varint(data, position + 1)
        sizes.append(child)
    if level is None:
        level = 1
        while _span(level) < size:
            level += 1
        if size <= LEAF_BYTES:
            raise ValueError(f"{size} bytes are one leaf, not a tree")
    parts = zip(cids, sizes, totals, strict=True)
    return tuple(Link(cid, part, total, level - 1) for cid, part, total in parts), level


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 63 bits")
