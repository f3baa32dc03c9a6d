"""Events of an arena: raw ``eth_getLogs`` and a decoder of our own, some 50 times web3's speed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, Final

from eth_utils import to_checksum_address

from pouw import events
from pouw.chain.abi import artifact
from pouw.chain.rpc import Endpoint, EndpointRefused, as_bytes, as_quantity
from pouw.errors import ChainUnavailable
from pouw.events import Event
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
_MAX_RANGE: Final = 50_000

Decoder = Callable[[bytes, bytes], Any]


def read_events(endpoint: Endpoint, arena: Address, from_block: int, to_block: int) -> list[Event]:
    """The arena's events of blocks ``from_block`` to ``to_block``, both included, in order.

    A range that the endpoint finds too large is split. ChainUnavailable where it answers with
    anything else than this arena's logs.
    """
    found: list[Event] = []
    ranges = [
        (first, min(first + _MAX_RANGE - 1, to_block))
        for first in range(from_block, to_block + 1, _MAX_RANGE)
    ]
    ranges.reverse()
    while ranges:
        first, last = ranges.pop()
        query = {"address": arena, "fromBlock": hex(first), "toBlock": hex(last)}
        try:
            logs = endpoint.request("eth_getLogs", query)
        except EndpointRefused as error:
            if first == last:
                raise ChainUnavailable(
                    f"{endpoint.url} gives no events of block {first}: {error.message[:200]}",
                    hint="where it keeps no blocks as old as that, set from_block to the arena's "
                    "deployment, or use an endpoint with the whole history",
                ) from error
            middle = (first + last) // 2
            ranges += [(middle + 1, last), (first, middle)]
            continue
        wrong = endpoint.malformed("eth_getLogs")
        decoded = decode_logs(logs, arena, wrong)
        if any(not first <= event.block_number <= last for event in decoded):
            raise wrong
        found += decoded
    if any(before.position >= after.position for before, after in pairwise(found)):
        raise endpoint.malformed("eth_getLogs")
    return found


def decode_logs(logs: Any, arena: Address, wrong: ChainUnavailable) -> list[Event]:
    """The events of ``arena`` among ``logs`` (an endpoint's or a receipt's); ``wrong`` if none.

    Logs of other contracts and of events that a later version might add are left out.
    """
    if not isinstance(logs, list | tuple):
        raise wrong
    own = arena.lower()
    found = []
    try:
        for log in logs:
            if str(log["address"]).lower() == own and not log.get("removed", False):
                event = _event(log, wrong)
                if event is not None:
                    found.append(event)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise wrong from error
    return found


def _event(log: Any, wrong: ChainUnavailable) -> Event | None:
    topics = [as_bytes(topic, wrong, _WORD) for topic in log["topics"]]
    layout = _layouts().get(topics[0]) if topics else None
    if layout is None:
        return None
    kind, indexed, data_fields, head_bytes = layout
    data = as_bytes(log["data"], wrong)
    if len(topics) != len(indexed) + 1 or len(data) < head_bytes:
        raise wrong
    values = [decode(topic, b"") for decode, topic in zip(indexed, topics[1:], strict=True)]
    values += [
        decode(data[position * _WORD : (position + 1) * _WORD], data)
        for position, decode in enumerate(data_fields)
    ]
    return kind(
        as_quantity(log["blockNumber"], wrong),
        as_bytes(log["blockHash"], wrong, _WORD),
        as_quantity(log["logIndex"], wrong),
        as_bytes(log["transactionHash"], wrong, _WORD),
        *values,
    )


@functools.cache
def _layouts() -> dict[bytes, tuple[type[Event], list[Decoder], list[Decoder], int]]:
    """Record, decoders of topics and of data words, and least bytes of data, by topic 0."""
    return {
        layout.topic: (
            _EVENTS[layout.name],
            _decoders(layout.indexed),
            _decoders(layout.data),
            _WORD * len(layout.data),
        )
        for layout in artifact().events.values()
        if layout.name in _EVENTS
    }


def _decoders(fields: Iterable[tuple[str, str]]) -> list[Decoder]:
    return [_verdict if name == "verdict" else _decoder(kind) for name, kind in fields]


def _decoder(kind: str) -> Decoder:
    if kind == "address":
        return lambda word, _: _address(word)
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


@functools.lru_cache(maxsize=4096)
def _address(word: bytes) -> Address:
    return Address(to_checksum_address(word[12:]))


def _dynamic(word: bytes, data: bytes) -> bytes:
    begin = int.from_bytes(word, "big")
    size = int.from_bytes(data[begin : begin + _WORD], "big")
    content = data[begin + _WORD : begin + _WORD + size]
    if len(content) != size:
        raise ValueError("truncated")
    return content
