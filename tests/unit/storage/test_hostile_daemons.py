"""Daemons that trickle, flood, redirect or answer nonsense: each call of ours ends, by itself."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
from collections.abc import Callable

import pytest
from strangers import (
    CHUNKED,
    Script,
    chunks,
    daemon,
    document,
    dripping,
    ending,
    exploding,
    flooding,
    host,
    saying,
    silent,
    whole,
)

from pouw.errors import ContentError, ContentNotFound
from pouw.storage.block import LEAF_BYTES, cid_of_bytes
from pouw.storage.ipfs import IpfsStore
from pouw.storage.mirrors import Mirrors

BLOCK = b"a block"
CID = cid_of_bytes(BLOCK)

Call = Callable[[IpfsStore], object]
CALLS: dict[str, Call] = {
    "put_block": lambda store: store.put_block(CID, BLOCK),
    "has_block": lambda store: store.has_block(CID),
    "pin": lambda store: store.pin(CID),
    "unpin": lambda store: store.unpin(CID),
    "pins": lambda store: store.pins(),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


def complaint(store: IpfsStore, call: Call) -> str:
    """What is said of a call that is refused."""
    try:
        assert call(store) is False
    except ContentError as error:
        return str(error)
    return "not here"


def patient(address: str) -> IpfsStore:
    """With no more patience than a test has."""
    return IpfsStore(address, search_seconds=0, block_seconds=0.5, answer_seconds=0.5)


TRICKLES: dict[str, Script] = {
    "silence": silent,
    "head": dripping(b"HTTP/1.1 200 OK\r\n", b"X-Slow: it\r\n"),
    "promises": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b" "),
    "body without a length": dripping(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "chunks": dripping(CHUNKED, b"1\r\n \r\n"),
    "lines": dripping(CHUNKED, chunks(b"{}\n")),
    "trailers": dripping(CHUNKED + chunks(b"{}") + b"0\r\n", b"X-Slow: it\r\n"),
    "refusal": dripping(b"HTTP/1.1 500 Error\r\nContent-Length: 99999\r\n\r\n", b" "),
}


@each_call
@pytest.mark.parametrize("trickle", TRICKLES.values(), ids=TRICKLES.keys())
def test_call__answer_that_trickles__ends_by_itself(call: Call, trickle: Script) -> None:
    with daemon(trickle) as (address, _):
        store = patient(address)
        begun = time.monotonic()
        with pytest.raises(ContentError):
            call(store)
        assert time.monotonic() - begun < 10
        store.close()


@pytest.mark.parametrize("trickle", TRICKLES.values(), ids=TRICKLES.keys())
def test_open__version_that_trickles__ends_by_itself(trickle: Script) -> None:
    with host(trickle) as (address, _):
        begun = time.monotonic()
        with pytest.raises(ContentError):
            patient(address)
        assert time.monotonic() - begun < 10


def test_put_block__daemon_that_does_not_read__ends_by_itself() -> None:
    block = bytes(LEAF_BYTES)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def answer() -> None:
            first, _ = listener.accept()
            with first:
                first.recv(1 << 16)
                first.sendall(whole(b'{"Version":"0.30.0"}', "200 OK", "Connection: close"))
            second, _ = listener.accept()
            with second:
                while not stop.wait(0.05):
                    second.recv(16)

        thread = threading.Thread(target=answer)
        thread.start()
        store = patient(f"http://127.0.0.1:{listener.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(ContentError):
            store.put_block(cid_of_bytes(block), block)
        assert time.monotonic() - begun < 10
        stop.set()
        thread.join()
        store.close()


LINES = chunks(*[b'{"Keys":{}}\n'] * 100)
FLOODS: dict[str, Script] = {
    "white space": flooding(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "one line": flooding(b'HTTP/1.1 200 OK\r\n\r\n{"Keys":{"', b"x"),
    "lines": flooding(CHUNKED, LINES),
    "trailers": flooding(CHUNKED + chunks(b"{}") + b"0\r\n", b"X-More: of it\r\n"),
    "refusal": flooding(b"HTTP/1.1 500 Error\r\n\r\n", b" "),
    "compressed": exploding,
}


@each_call
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_call__answer_without_end__is_not_kept(call: Call, flood: Script) -> None:
    with daemon(flood) as (address, _):
        store = IpfsStore(address)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.monotonic()
        with pytest.raises(ContentError):
            call(store)
        assert time.monotonic() - begun < 60
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10
        store.close()


@each_call
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_call__redirected__goes_nowhere(call: Call, status: str) -> None:
    gladly = saying(document(Key=CID, Keys={}, Pins=[CID], Version="0.30.0"))
    with host(gladly) as (other, there):
        away = saying(whole(b"", status, f"Location: {other}/api/v0/pin/ls"))
        with daemon(away) as (address, _):
            store = IpfsStore(address)
            with pytest.raises(ContentError):
                call(store)
            store.close()
    assert not there


NONSENSE = {
    "nothing": b"",
    "page": b"<html>",
    "number": b"1",
    "null": b"null",
    "list": b"[]",
    "list of lists": b"[[]]",
    "deep": b"[" * 100_000,
    "deep member": b'{"Keys":' + b'{"a":' * 100_000,
    "not a number": b'{"Key":NaN,"Keys":NaN,"Pins":NaN,"Size":NaN,"Progress":NaN}',
    "other kinds": b'{"Key":1,"Keys":[1],"Pins":7,"Size":"big","Progress":"far"}',
    "other members": b'{"Key":null,"Keys":null,"Pins":null,"Progress":null}',
    "half": b'{"Key":"' + CID.encode(),
    "not text": b'{"Key":"\xff\xfe"}',
    "several": b"{}\n{}\n[]\n",
    "digits": b'{"Key":' + b"9" * 9_000 + b',"Progress":' + b"9" * 9_000 + b"}",
}


@pytest.mark.parametrize("name", sorted(CALLS))
@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE.keys())
def test_call__answer_of_nonsense__is_an_error_of_ours(name: str, body: bytes) -> None:
    with daemon(ending(whole(body))) as (address, _):
        store = IpfsStore(address)
        with pytest.raises(ContentError) as caught:
            CALLS[name](store)
        store.close()
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


@each_call
@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE.keys())
def test_call__refused_with_nonsense__is_an_error_of_ours(call: Call, body: bytes) -> None:
    refusal = whole(body.replace(b"Key", b"Message"), "500 \x1b[2J" + "x" * 9_000)
    with daemon(ending(refusal)) as (address, _):
        store = IpfsStore(address)
        said = complaint(store, call)
        assert len(said) < 1000
        assert said.isprintable()
        store.close()


def test_call__refused_in_words_for_a_terminal__shows_a_short_line() -> None:
    words = json.dumps({"Message": "\x1b[2J\x1b[1;1H all is well \n" + "x" * 9_000}).encode()
    with daemon(saying(whole(words, "500 Error"))) as (address, _):
        store = IpfsStore(address)
        for call in (*CALLS.values(), lambda store: store.get_block(CID)):
            said = complaint(store, call)
            assert "all is well" in said or said == "not here"
            assert len(said) < 1000
            assert said.isprintable()
        store.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("put_block", ContentError), ("pin", ContentNotFound), ("pins", ContentError)],
)
def test_call__refused__says_why(name: str, kind: type[ContentError]) -> None:
    """A daemon that keeps nothing is no sign that content is missing."""
    with daemon(saying(whole(b'{"Message":"no space left"}', "500 Error"))) as (address, _):
        store = IpfsStore(address)
        for _ in range(2):
            with pytest.raises(ContentError, match="no space left") as caught:
                CALLS[name](store)
            assert type(caught.value) is kind
        store.close()


def test_open__version_in_words_for_a_terminal__shows_a_short_line() -> None:
    words = json.dumps({"Version": "0.8.0\x1b[2J" + "x" * 9_000}).encode()
    with host(saying(whole(words))) as (address, _), pytest.raises(Exception, match="Kubo") as got:
        IpfsStore(address)
    assert len(str(got.value)) < 1000
    assert str(got.value).isprintable()


def test_pin__progress_for_longer_than_any_silence__is_waited_for() -> None:
    """What a daemon fetches from its network takes as long as it takes."""

    def slowly(connection: socket.socket, target: str) -> None:
        connection.sendall(CHUNKED)
        for count in range(1, 13):
            time.sleep(0.25)
            connection.sendall(chunks(json.dumps({"Progress": count}).encode() + b"\n"))
        connection.sendall(chunks(json.dumps({"Pins": [CID]}).encode() + b"\n") + b"0\r\n\r\n")

    with daemon(slowly) as (address, asked):
        store = IpfsStore(address, search_seconds=0, block_seconds=1.5, answer_seconds=1)
        begun = time.monotonic()
        store.pin(CID)
        assert time.monotonic() - begun > 2
        store.close()
    assert "progress=true" in asked[-1]
    assert "timeout" not in asked[-1]


STALLS = {
    "no number": chunks(b"{}\n"),
    "same number": chunks(b'{"Progress":7}\n'),
    "numbers going round": chunks(*[b'{"Progress":%d}\n' % number for number in range(5)]),
    "numbers going down": chunks(*[b'{"Progress":%d}\n' % number for number in range(-9, -90, -1)]),
}


@pytest.mark.parametrize("lines", STALLS.values(), ids=STALLS.keys())
def test_pin__no_progress__is_not_found(lines: bytes) -> None:
    with daemon(dripping(CHUNKED, lines, 0.005)) as (address, _):
        store = patient(address)
        begun = time.monotonic()
        with pytest.raises(ContentNotFound, match="no further block"):
            store.pin(CID)
        assert time.monotonic() - begun < 10
        store.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"{}\n", b'{"Progress":3}\n', b'{"Progress":3}\n{"Pins":[]}\n', b'{"Pins":["other"]}\n'],
)
def test_pin__ends_without_having_pinned__is_an_error(body: bytes) -> None:
    with daemon(ending(whole(body))) as (address, _):
        store = patient(address)
        with pytest.raises(ContentError):
            store.pin(CID)
        store.close()


@each_call
@pytest.mark.parametrize("name", ["silence", "body", "lines"])
def test_call__role_ends_meanwhile__ends_promptly(call: Call, name: str) -> None:
    over = threading.Event()
    with daemon(TRICKLES[name]) as (address, _):
        store = IpfsStore(address, search_seconds=60)
        timer = threading.Timer(0.3, over.set)
        timer.start()
        begun = time.monotonic()
        with pytest.raises(ContentError, match="has ended"):
            call(store.until(over))
        assert time.monotonic() - begun < 8
        timer.join()
        store.close()


def test_mirrors__role_ends_while_its_daemon_pins__ends_promptly() -> None:
    over = threading.Event()
    with daemon(dripping(CHUNKED, b"1\r\n \r\n")) as (address, asked):
        store = Mirrors([("own", IpfsStore(address, search_seconds=60))])
        timer = threading.Timer(0.3, over.set)
        timer.start()
        begun = time.monotonic()
        with pytest.raises(ContentError, match="has ended"):
            store.until(over).pin(CID)
        assert time.monotonic() - begun < 8
        timer.join()
        store.close()
    assert "pin/add" in asked[-1]


@each_call
def test_call__whoever_asked_has_ended__what_is_answered_at_once_is_still_done(call: Call) -> None:
    over = threading.Event()
    with daemon(saying(document(Key=CID, Size=7, Keys={CID: {}}, Pins=[CID]))) as (address, _):
        store = IpfsStore(address).until(over)
        over.set()
        assert call(store) in (None, True, {CID})
        store.close()
