from __future__ import annotations

import time
from typing import Any

import pytest
from eth_abi import encode

from pouw import events
from pouw.chain.abi import artifact
from pouw.chain.accounts import dev_account
from pouw.chain.devnet import Devnet
from pouw.chain.logs import decode_logs
from pouw.chain.ranges import read_events
from pouw.chain.rpc import Endpoint, EndpointRefused
from pouw.chain.tx import Call, Sender
from pouw.errors import ChainUnavailable
from pouw.types import Address, RoundNumber, TaskId, Verdict

ARENA = Address("0x" + "22" * 20)
WHO = Address("0x" + "33" * 20)
WRONG = ChainUnavailable("nonsense")


def _log(name: str, *values: Any, position: int = 0, **changes: Any) -> dict[str, Any]:
    layout = next(item for item in artifact().events.values() if item.name == name)
    indexed, data = values[: len(layout.indexed)], values[len(layout.indexed) :]
    topics = [layout.topic] + [
        encode([kind], [value]) for (_, kind), value in zip(layout.indexed, indexed, strict=True)
    ]
    log = {
        "address": ARENA,
        "topics": ["0x" + topic.hex() for topic in topics],
        "data": "0x" + encode([kind for _, kind in layout.data], data).hex(),
        "blockNumber": "0x5",
        "blockHash": "0x" + "ab" * 32,
        "logIndex": hex(position),
        "transactionHash": "0x" + "cd" * 32,
        "removed": False,
    }
    return log | changes


def _sample(kind: str) -> Any:
    if kind.startswith("bytes"):
        return b"\x07" * int(kind[5:] or 65)
    return {"address": WHO, "bool": True}.get(kind, 2)


def test_every_event__has_a_record_with_the_fields_of_the_contract() -> None:
    for layout in artifact().events.values():
        if layout.name == "EIP712DomainChanged":
            continue
        fields = [*layout.indexed, *layout.data]
        values = [_sample(kind) for _, kind in fields]
        (event,) = decode_logs([_log(layout.name, *values)], ARENA, WRONG)
        assert type(event).__name__ == layout.name
        found = list(type(event).__struct_fields__)[4:]
        assert found == [_snake(name) for name, _ in fields]
        assert [getattr(event, name) for name in found] == values


def _snake(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)


def test_round_closed__decodes_to_typed_values() -> None:
    log = _log("RoundClosed", 1, 2, WHO, 7, b"\x01" * 22, b"\x02" * 32, 99, b"\x03" * 32)
    assert decode_logs([log], ARENA, WRONG) == [
        events.RoundClosed(
            5,
            b"\xab" * 32,
            0,
            b"\xcd" * 32,
            RoundNumber(1),
            Verdict.NO_TRUE_CLAIM,
            WHO,
            7,
            b"\x01" * 22,
            b"\x02" * 32,
            99,
            b"\x03" * 32,
        )
    ]


def test_logs__of_others__are_left_out() -> None:
    own = _log("TaskDropped", 1)
    other = own | {"address": WHO}
    unknown = own | {"topics": ["0x" + "ee" * 32]}
    removed = own | {"removed": True}
    found = decode_logs([other, own, unknown, removed, own | {"topics": []}], ARENA, WRONG)
    assert [event.task_id for event in found if isinstance(event, events.TaskDropped)] == [
        TaskId(1)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"topics": "0x"},
        {"topics": [None]},
        {"topics": ["0x" + topic for topic in ("00" * 31, "00" * 33)]},
        {"data": "0x00"},
        {"data": "0x" + "01" * 64 + " "},
        {"data": "01" * 65},
        {"address": 7},
        {"data": None},
        {"blockNumber": None},
        {"logIndex": "x"},
        {"transactionHash": "0x12"},
        {"blockHash": 7},
    ],
)
def test_log__that_is_malformed__is_an_unavailable_chain(changes: dict[str, Any]) -> None:
    log = _log("Committed", 1, WHO, b"\x01" * 32, 9) | changes
    with pytest.raises(ChainUnavailable):
        decode_logs([log], ARENA, WRONG)


@pytest.mark.parametrize("logs", [None, 7, {"a": 1}, [7], [None], ["x"], [{}]])
def test_logs__that_are_none__are_an_unavailable_chain(logs: Any) -> None:
    with pytest.raises(ChainUnavailable):
        decode_logs(logs, ARENA, WRONG)


@pytest.mark.parametrize(
    ("name", "values", "place"),
    [
        ("Committed", (1, WHO, b"\x01" * 32, 9), 2),  # the round, a uint64 topic
        ("Committed", (1, WHO, b"\x01" * 32, 9), 0),  # committedAt, a uint40 in the data
        ("Reclaimed", (1, WHO, True), 0),
        ("RoundClosed", (1, 2, WHO, 7, b"\x01" * 22, b"\x02" * 32, 99, b"\x03" * 32), 1),
    ],
)
def test_log__no_contract_encodes__is_an_unavailable_chain(
    name: str, values: tuple[Any, ...], place: int
) -> None:
    log = _log(name, *values)
    assert decode_logs([log], ARENA, WRONG)
    if place == 2:
        log["topics"][1] = "0x80" + log["topics"][1][4:]
    else:
        at = 2 + 64 * {"Committed": 1, "Reclaimed": 0, "RoundClosed": place}[name]
        log["data"] = log["data"][:at] + "8" + log["data"][at + 1 :]
    with pytest.raises(ChainUnavailable):
        decode_logs([log], ARENA, WRONG)


def test_verdict__out_of_range_or_bytes_cut_short__is_an_unavailable_chain() -> None:
    with pytest.raises(ChainUnavailable):
        decode_logs([_log("Ruled", 1, 9, WHO, b"\x01" * 32, True)], ARENA, WRONG)
    whole = _log("Revealed", 1, WHO, 7, b"\x01" * 32, b"\x02" * 32, b"\x03" * 65)
    cut = whole | {"data": whole["data"][: 2 + 2 * 5 * 32]}
    with pytest.raises(ChainUnavailable):
        decode_logs([cut], ARENA, WRONG)


def test_read_events__of_too_large_a_range__splits_it(
    devnet: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Endpoint.connect(devnet.url)
    sender = Sender(endpoint, dev_account(0))
    topic = next(item for item in artifact().events.values() if item.name == "TaskDropped").topic
    # A contract that emits TaskDropped(number of the block) whenever it is called.
    code = b"\x43\x7f" + topic + bytes.fromhex("5f5fa200")
    creation = bytes.fromhex(f"60{len(code):02x}80600b5f395ff3")
    created = sender.transact(Call("log", None, creation.ljust(11, b"\x00")[:11] + code)).created
    assert created is not None
    sent = []
    for _ in range(3):
        sent = [sender.send(Call("log", created, b"")) for _ in range(2)]
        sender.wait(sent[-1])
    monkeypatch.setattr("pouw.chain.methods.MAX_LOGS", 2)
    found = read_events(endpoint, created, 0, endpoint.block_number())
    assert len(found) == 6
    assert [event.position for event in found] == sorted(event.position for event in found)
    for event in found:
        assert isinstance(event, events.TaskDropped)
        assert event.task_id == event.block_number
    endpoint.close()


def test_read_events__of_blocks_that_are_not_kept__says_what_to_set(devnet: Devnet) -> None:
    class Pruned(Endpoint):
        def request(self, method: str, *params: Any) -> Any:
            raise EndpointRefused(self.url, -32000, "pruned history unavailable", None)

        send_many = request

    with pytest.raises(ChainUnavailable, match="no events of block 3") as caught:
        read_events(Pruned.connect(devnet.url), ARENA, 3, 40)
    assert "from_block" in str(caught.value.hint)


def test_decoding__is_fast_enough_for_long_histories() -> None:
    logs = [
        _log("Revealed", 1, WHO, 7, b"\x01" * 32, b"\x02" * 32, b"\x03" * 65, position=index)
        for index in range(2)
    ] * 2_000
    begin = time.process_time()
    assert len(decode_logs(logs, ARENA, WRONG)) == 4_000
    assert time.process_time() - begin < 1.0
