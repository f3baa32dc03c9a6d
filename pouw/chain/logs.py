"""Logs of an arena and the events they record, checked as strictly as a contract encodes them."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from pouw import events
from pouw.chain.abi import EventLayout, artifact
from pouw.chain.rpc import as_bytes, as_quantity
from pouw.errors import ChainUnavailable, PouwError
from pouw.events import Event
from pouw.hashing import checksum_address
from pouw.types import Address, Verdict

_EVENTS: Final[dict[str, type[Event]]] = {
    kind.__name__: kind
    for kind in (
        events.TaskPublished,
        events.TaskToppedUp,
        events.TaskCancelled,
        events.TaskSelected,
        events.TaskDropped,
        events.DataKeyReleased,
        events.Committed,
        events.TestOpened,
        events.Revealed,
        events.Reported,
        events.Challenged,
        events.Ruled,
        events.RoundClosed,
        events.Reclaimed,
        events.Credited,
        events.Withdrawn,
    )
}
_WORD: Final = 32
_VERDICTS: Final = {int(verdict): verdict for verdict in Verdict}

Convert = Callable[[Any, bytes], Any]
WordText = Annotated[str, msgspec.Meta(min_length=2 + 2 * _WORD, max_length=2 + 2 * _WORD)]


class LogAnswer(msgspec.Struct, rename="camel", gc=False):
    """One log as JSON-RPC tells it: types and lengths of its fields are checked, no digits."""

    address: str
    topics: list[WordText]
    data: str
    block_number: str
    block_hash: WordText
    log_index: str
    transaction_hash: WordText
    removed: bool | None = False


class RawLog(msgspec.Struct, frozen=True, gc=False):
    """One log of the arena as bytes: its place, and its topics and data in one row."""

    block_number: int
    log_index: int
    block_hash: bytes
    transaction_hash: bytes
    words: bytes


def decode_logs(logs: Any, arena: Address, wrong: ChainUnavailable) -> list[Event]:
    """The events of ``arena`` among a receipt's ``logs``; ``wrong`` raised where they are none."""
    try:
        answer = msgspec.convert(logs, list[LogAnswer])
    except msgspec.ValidationError as error:
        raise wrong from error
    return [event_of(log, wrong) for log in raw_logs(answer, arena, wrong)]


def raw_logs(logs: list[LogAnswer], arena: Address, wrong: ChainUnavailable) -> list[RawLog]:
    """The logs of ``arena`` among ``logs``; ``wrong`` raised where they are malformed.

    Each of them is one that `event_of` takes. Logs of other contracts and of events that a later
    version might add are left out.
    """
    own = arena.lower()
    layouts = _layouts()
    # The logs of a block and of a transaction repeat their number and hash.
    repeated = functools.lru_cache(maxsize=64)
    hash_of = repeated(lambda text: as_bytes(text, wrong, _WORD))
    quantity_of = repeated(lambda text: as_quantity(text, wrong))
    found = []
    for log in logs:
        if log.removed or log.address.lower() != own or not log.topics:
            continue
        words = _words(log, wrong)
        layout = layouts.get(words[:_WORD])
        if layout is None:
            continue
        if len(log.topics) != layout.topics:
            raise wrong
        layout.check(words, wrong)
        found.append(
            RawLog(
                quantity_of(log.block_number),
                quantity_of(log.log_index),
                hash_of(log.block_hash),
                hash_of(log.transaction_hash),
                words,
            )
        )
    return found


def _words(log: LogAnswer, wrong: ChainUnavailable) -> bytes:
    """Topics and data of a log in one row."""
    digits = []
    for text in (*log.topics, log.data):
        if text[:2] != "0x":
            raise wrong
        digits.append(text[2:])
    joined = "".join(digits)
    try:
        words = bytes.fromhex(joined)
    except ValueError:
        raise wrong from None
    # Blanks, which fromhex skips, make the lengths differ.
    if 2 * len(words) != len(joined):
        raise wrong
    return words


def event_of(log: RawLog, wrong: PouwError) -> Event:
    """The event that a log of the arena records; ``wrong`` raised where it is none."""
    words = log.words
    layout = _layouts().get(words[:_WORD])
    if layout is None:
        raise wrong
    try:
        values = list(layout.head.unpack_from(words))
        for at, convert in layout.converts:
            values[at] = convert(values[at], words)
    except (struct.error, KeyError, ValueError) as error:
        raise wrong from error
    return layout.kind(
        log.block_number, log.block_hash, log.log_index, log.transaction_hash, *values
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    """How an event lies in the words of its log.

    ``head`` splits its topics and the static part of its data; ``padding``: bits that are 0 in
    it; ``converts``: what is still to be done to which value; ``fallible``: those of them that do
    not take every content.
    """

    kind: type[Event]
    topics: int
    head: struct.Struct
    padding: int
    converts: tuple[tuple[int, Convert], ...]
    fallible: tuple[tuple[int, Convert], ...]

    def check(self, words: bytes, wrong: PouwError) -> None:
        """Raise ``wrong`` where ``words`` are not such an event as a contract encodes it."""
        size = self.head.size
        if len(words) < size or int.from_bytes(words[:size], "big") & self.padding:
            raise wrong
        if self.fallible:
            values = self.head.unpack_from(words)
            try:
                for at, convert in self.fallible:
                    convert(values[at], words)
            except (KeyError, ValueError) as error:
                raise wrong from error


@functools.cache
def _layouts() -> dict[bytes, _Layout]:
    """Layouts by topic 0."""
    return {
        layout.topic: _layout(_EVENTS[layout.name], layout)
        for layout in artifact().events.values()
        if layout.name in _EVENTS
    }


def _layout(kind: type[Event], abi: EventLayout) -> _Layout:
    topics = 1 + len(abi.indexed)
    fields = [_field(name, of, _WORD * topics) for name, of in (*abi.indexed, *abi.data)]
    padding = 0
    for field in fields:
        padding = (padding << 8 * _WORD) | field.padding
    converts = tuple(
        (at, field.convert) for at, field in enumerate(fields) if field.convert is not None
    )
    return _Layout(
        kind=kind,
        topics=topics,
        head=struct.Struct(">32x" + "".join(field.form for field in fields)),
        padding=padding,
        converts=converts,
        fallible=tuple((at, convert) for at, convert in converts if fields[at].fallible),
    )


@dataclass(frozen=True, slots=True)
class _Field:
    """How a value lies in its word: as `struct` takes it, and the bits that are 0."""

    form: str
    padding: int
    convert: Convert | None = None
    fallible: bool = False


def _field(name: str, kind: str, data_at: int) -> _Field:
    word = (1 << 8 * _WORD) - 1
    if name == "verdict":
        return _Field("31xB", word << 8 & word, lambda value, _: _VERDICTS[value], fallible=True)
    if kind == "address":
        return _Field("12x20s", word << 160 & word, lambda value, _: checksum_address(value))
    if kind == "bool":
        return _Field("31x?", word << 1 & word)
    if kind == "bytes":
        return _Field("32s", 0, functools.partial(_dynamic, data_at), fallible=True)
    if kind.startswith("bytes"):
        size = int(kind.removeprefix("bytes"))
        return _Field(f"{size}s{_WORD - size}x", word >> 8 * size)
    bits = int(kind.removeprefix("uint"))
    if bits <= 64:
        return _Field("24xQ", word << bits & word)
    return _Field("32s", word << bits & word, lambda value, _: int.from_bytes(value, "big"))


def _dynamic(data_at: int, offset: bytes, words: bytes) -> bytes:
    begin = data_at + int.from_bytes(offset, "big")
    size = int.from_bytes(words[begin : begin + _WORD], "big")
    content = words[begin + _WORD : begin + _WORD + size]
    if len(content) != size:
        raise ValueError("truncated")
    return content
