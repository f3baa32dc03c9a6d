"""Gateways that do to a reader whatever HTTP lets them, and more."""

from __future__ import annotations

import contextlib
import gc
import resource
import threading
import time
import weakref
from random import Random

import pytest
from strangers import (
    CHUNKED,
    Script,
    black_hole,
    bomb,
    chunks,
    dripping,
    ending,
    exploding,
    flooding,
    host,
    open_files,
    saying,
    silent,
    whole,
)

from pouw.errors import ContentError, ContentMismatch, ContentTooLarge
from pouw.storage.block import LEAF_BYTES, cid_of_bytes
from pouw.storage.gateway import GatewayStore

BLOCK = b"a block"
CID = cid_of_bytes(BLOCK)
REFUSED = CHUNKED.replace(b"200 OK", b"404 Not Found")

FLOODS = {
    "promises": flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "promises with headers": flooding(b"", b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n"),
    "headers": flooding(b"HTTP/1.1 200 OK\r\n", b"X-More: of it\r\n"),
    "one header": flooding(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "status": flooding(b"HTTP/1.1 200 ", b"x"),
    "trailers": flooding(CHUNKED + chunks(BLOCK) + b"0\r\n", b"X-More: of it\r\n"),
    "chunks of a byte": flooding(CHUNKED, b"1\r\nx\r\n"),
    "chunk extensions": flooding(CHUNKED, b"1;" + b"x" * 60_000 + b"\r\nx\r\n"),
    "chunk of minus one": flooding(CHUNKED + b"-1\r\n", b"x"),
    "refusal of minus one": flooding(REFUSED + b"-1\r\n", b"x"),
    "refusal": flooding(REFUSED, chunks(b"x" * 1000)),
    "refusal's trailers": flooding(REFUSED + chunks(b"x") + b"0\r\n", b"X-More: of it\r\n"),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_get_block__answer_without_end__is_left_long_before_the_deadline(flood: Script) -> None:
    with host(flood) as (address, asked):
        store = GatewayStore(address, timeout_seconds=60, block_seconds=60)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.monotonic()
        with pytest.raises(ContentError):
            store.get_block(CID)
        assert time.monotonic() - begun < 40
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
        store.close()
    assert len(asked) == 1


CROOKED = {
    "negative chunk": CHUNKED + b"-5\r\n" + BLOCK,
    "negative chunk of a refusal": REFUSED + b"-5\r\n" + BLOCK,
    "endless number": CHUNKED + b"f" * 60_000 + b"\r\n",
    "no number": CHUNKED + b"many\r\n" + BLOCK,
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -7\r\n\r\nan",
    "length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: NaN\r\n\r\nan",
    "length of many digits": b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % (b"9" * 9_000),
    "huge length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 80),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 7\r\n\r\n" + BLOCK,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "no protocol": b"\x00\xff" * 500,
    "status that is none": b"HTTP/1.1 two OK\r\n\r\n",
    "status below all": b"HTTP/1.1 -1 OK\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n" + BLOCK,
    "part": whole(BLOCK, "206 Partial Content", "Content-Range: bytes 0-6/99"),
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "folded headers": b"HTTP/1.1 200 OK\r\n folded\r\n\tmore\r\n: none\r\n=?x?b?=: \xff\r\n\r\n",
}


@pytest.mark.parametrize("response", CROOKED.values(), ids=CROOKED.keys())
def test_get_block__answer_against_the_rules__is_an_error_of_ours(response: bytes) -> None:
    with host(ending(response)) as (address, _):
        store = GatewayStore(address, block_seconds=10)
        with pytest.raises(ContentError, match=address):
            store.get_block(CID)
        with contextlib.suppress(ContentError):
            store.has_block(CID)
        store.close()


def test_get_block__noise__is_an_error_of_ours_and_leaves_nothing_open() -> None:
    """Whatever comes, a role lives on: only errors of ours may reach it."""
    random = Random(5)
    pieces = [
        b"HTTP/1.1 ",
        b"200",
        b" OK",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b":",
        b" ",
        b"-",
        b"0",
        b"1",
    ]
    pieces += [
        b"Content-Length",
        b"Transfer-Encoding",
        b"chunked",
        b"Connection",
        b"close",
        b"\xff",
    ]
    pieces += [b"Location", b"404", b"100", b"7fffffffffffffff", BLOCK, b"\x00", b";", b"HTTP/1.0 "]
    answers = [CHUNKED + b"".join(random.choices(pieces, k=20)) for _ in range(150)]
    answers += [REFUSED + b"".join(random.choices(pieces, k=20)) for _ in range(150)]
    answers += [b"HTTP/1.1 200 OK\r\n" + b"".join(random.choices(pieces, k=30)) for _ in range(150)]
    answers += [b"".join(random.choices(pieces, k=30)) for _ in range(150)]
    left = iter(answers)
    with host(lambda connection, target: ending(next(left))(connection, target)) as (address, _):
        store = GatewayStore(address, timeout_seconds=5)
        before = open_files()
        for _ in answers:
            try:
                assert store.get_block(CID) == BLOCK
            except ContentError:
                continue
        store.close()
        assert open_files() <= before + 8


def test_get_block__compressed_on_the_way__is_not_opened() -> None:
    with host(exploding) as (address, _):
        store = GatewayStore(address)
        with pytest.raises(ContentMismatch, match=f"{len(bomb())} bytes"):
            store.get_block(CID)
        store.close()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_get_block__redirected__goes_nowhere_and_says_where_to(status: str) -> None:
    with host(saying(whole(BLOCK))) as (other, asked_there):
        target = f"Location: {other}/ipfs/{CID}?format=raw"
        with host(saying(whole(b"", status, target))) as (address, asked):
            store = GatewayStore(address)
            for _ in range(2):
                with pytest.raises(ContentError) as caught:
                    store.get_block(CID)
            assert not store.has_block(CID)
            store.close()
    assert other in str(caught.value.hint)
    assert len(asked) == 3
    assert not asked_there


@pytest.mark.parametrize("kind", ["text/html", "application/json", "\xff"])
def test_get_block__content_of_another_type__is_what_its_hash_says(kind: str) -> None:
    with host(saying(whole(BLOCK, "200 OK", f"Content-Type: {kind}"))) as (address, _):
        store = GatewayStore(address)
        assert store.get_block(CID) == BLOCK
        store.close()


WORDS = {
    "error": whole(b"", "500 \x1b]0;owned\x07 \x9b2J " + "x" * 9_000),
    "absent": whole(b"", "404 \x1b[2J\x1b[1;1H all is well " + "x" * 9_000),
    "no status": b"\x1b[2JHTTP " + b"x" * 9_000 + b"\r\n\r\n",
    "no chunk": CHUNKED + b"\x1b[2J" + b"x" * 9_000 + b"\r\n",
    "redirect": whole(b"", "301 Moved", "Location: \x1b[2J" + "x" * 9_000),
}


@pytest.mark.parametrize("response", WORDS.values(), ids=WORDS.keys())
def test_get_block__refused_in_words_for_a_terminal__shows_a_short_line(response: bytes) -> None:
    with host(ending(response)) as (address, _):
        store = GatewayStore(address)
        with pytest.raises(ContentError) as caught:
            store.get_block(CID)
        store.close()
    said = f"{caught.value} {caught.value.hint}"
    assert said.isprintable()
    assert len(said) < 1000


def test_get_block__more_than_a_block_in_chunks__is_too_large() -> None:
    body = CHUNKED + chunks(*[b"x" * 60_000] * 20) + b"0\r\n\r\n"
    with host(saying(body)) as (address, _):
        store = GatewayStore(address)
        with pytest.raises(ContentTooLarge):
            store.get_block(CID)
        store.close()


def test_get_block__in_chunks__comes_and_the_connection_is_kept() -> None:
    content = Random(3).randbytes(LEAF_BYTES)
    body = CHUNKED + chunks(*(content[at : at + 4096] for at in range(0, LEAF_BYTES, 4096)))
    with host(saying(body + b"0\r\nX-Trailer: one\r\n\r\n")) as (address, _):
        store = GatewayStore(address)
        before = open_files()
        for _ in range(3):
            assert store.get_block(cid_of_bytes(content)) == content
        assert open_files() <= before + 2
        store.close()


WAITS = {
    "silence": silent,
    "head": dripping(b"HTTP/1.1 200 OK\r\n", b"X-Slow: it\r\n"),
    "body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_get_block__role_ends_meanwhile__ends_promptly(wait: Script) -> None:
    over = threading.Event()
    with host(wait) as (address, _):
        store = GatewayStore(address, timeout_seconds=60, block_seconds=60)
        ends_promptly(store, over)
        store.close()


def test_get_block__role_ends_while_it_connects__ends_promptly() -> None:
    with black_hole() as port:
        ends_promptly(GatewayStore(f"http://127.0.0.1:{port}", 60, 60), threading.Event())


def ends_promptly(store: GatewayStore, over: threading.Event) -> None:
    timer = threading.Timer(0.3, over.set)
    timer.start()
    begun = time.monotonic()
    with pytest.raises(ContentError, match="has ended"):
        store.until(over).get_block(CID)
    assert time.monotonic() - begun < 8
    timer.join()


def test_get_block__role_has_ended__what_is_answered_at_once_still_comes() -> None:
    over = threading.Event()
    over.set()
    with host(saying(whole(BLOCK))) as (address, _):
        store = GatewayStore(address)
        assert store.until(over).get_block(CID) == BLOCK
        store.close()


def test_gateway__let_go_of_unclosed__leaves_no_connection_open() -> None:
    with host(saying(whole(BLOCK))) as (address, _):
        store = GatewayStore(address)
        assert store.get_block(CID) == BLOCK
        (connection,) = store._host._idle
        sock = weakref.ref(connection.sock)
        gc.disable()
        try:
            with pytest.warns(ResourceWarning, match="unclosed"):
                del store, connection
            assert sock() is None
        finally:
            gc.enable()
