"""Logs of an arena and the events they record: a decoder of our own, some 50 times web3's speed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

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

Decoder = Callable[[bytes, bytes], Any]


class RawLog(NamedTuple):
    """One log of the arena as bytes: its place, and its topics and data in one row."""

    block_number: int
    block_hash: bytes
    log_index: int
    transaction_hash: bytes
    words: bytes


def decode_logs(logs: Any, arena: Address, wrong: ChainUnavailable) -> list[Event]:
    """The events of ``arena`` among ``logs`` (an endpoint's or a receipt's); ``wrong`` if none."""
    return [event_of(log, wrong) for log in raw_logs(logs, arena, wrong)]


def raw_logs(logs: Any, arena: Address, wrong: ChainUnavailable) -> list[RawLog]:
    """The logs of ``arena`` among ``logs``; ``wrong`` raised where they are not logs.

    Each of them is one that `event_of` takes. Logs of other contracts and of events that a later
    version might add are left out.
    """
    if not isinstance(logs, list | tuple):
        raise wrong
    own = arena.lower()
    layouts = _layouts()
    # The logs of a block and of a transaction repeat its hash.
    hashes: dict[Any, bytes] = {}

    def hash_of(text: Any) -> bytes:
        known = hashes.get(text)
        if known is None:
            known = hashes[text] = as_bytes(text, wrong, _WORD)
        return known

    found = []
    try:
        for log in logs:
            if str(log["address"]).lower() != own or log.get("removed", False):
                continue
            topics = [as_bytes(topic, wrong, _WORD) for topic in log["topics"]]
            layout = layouts.get(topics[0]) if topics else None
            if layout is None:
                continue
            row = RawLog(
                as_quantity(log["blockNumber"], wrong),
                hash_of(log["blockHash"]),
                as_quantity(log["logIndex"], wrong),
                hash_of(log["transactionHash"]),
                b"".join((*topics, as_bytes(log["data"], wrong))),
            )
            if len(topics) != layout.indexed + 1 or len(row.words) < layout.least_bytes:
                raise wrong
            if layout.fallible:
                event_of(row, wrong)
            found.append(row)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise wrong from error
    return found


def event_of(log: RawLog, wrong: PouwError) -> Event:
    """The event that a log of the arena records; ``wrong`` raised where it is none."""
    words = log.words
    layout = _layouts().get(words[:_WORD])
    if layout is None or len(words) < layout.least_bytes:
        raise wrong
    data = words[layout.data_at :]
    try:
        return layout.kind(
            log.block_number,
            log.block_hash,
            log.log_index,
            log.transaction_hash,
            *[decode(words[at : at + _WORD], data) for at, decode in layout.fields],
        )
    except (IndexError, ValueError) as error:
        raise wrong from error


@dataclass(frozen=True, slots=True)
class _Layout:
    """How an event lies in the words of its log: where each field is, and its decoder.

    ``fallible``: not every content of the right length is one.
    """

    kind: type[Event]
    indexed: int
    data_at: int
    least_bytes: int
    fallible: bool
    fields: tuple[tuple[int, Decoder], ...]


@functools.cache
def _layouts() -> dict[bytes, _Layout]:
    """Layouts by topic 0."""
    return {
        layout.topic: _layout(_EVENTS[layout.name], layout)
        for layout in artifact().events.values()
        if layout.name in _EVENTS
    }


def _layout(kind: type[Event], abi: EventLayout) -> _Layout:
    decoders = [*_decoders(abi.indexed), *_decoders(abi.data)]
    return _Layout(
        kind=kind,
        indexed=len(abi.indexed),
        data_at=_WORD * (1 + len(abi.indexed)),
        least_bytes=_WORD * (1 + len(decoders)),
        fallible=_verdict in decoders or _dynamic in decoders,
        fields=tuple((_WORD * place, decoder) for place, decoder in enumerate(decoders, 1)),
    )


def _decoders(fields: Iterable[tuple[str, str]]) -> list[Decoder]:
    return [_verdict if name == "verdict" else _decoder(kind) for name, kind in fields]


def _decoder(kind: str) -> Decoder:
    if kind == "address":
        return lambda word, _: checksum_address(word[12:])
    if kind == "bool":
        return lambda word, _: word[31] != 0
    if kind == "bytes":
        return _dynamic
    if kind.startswith("bytes"):
        size = int(kind[5:])
        return lambda word, _: word[:size]
    return lambda word, _: int.from_bytes(word, "big")


def _verdict(word: bytes, _: bytes) -> Verdict:
    return Verdict(int.from_bytes(word, "big"))


def _dynamic(word: bytes, data: bytes) -> bytes:
    begin = int.from_bytes(word, "big")
    size = int.from_bytes(data[begin : begin + _WORD], "big")
    content = data[begin + _WORD : begin + _WORD + size]
    if len(content) != size:
        raise ValueError("truncated")
    return content
