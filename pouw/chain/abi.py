"""The contract's interface from its artifact: functions, custom errors, events by selector."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from eth_abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils import to_checksum_address

from pouw.errors import ChainError, Reverted
from pouw.hashing import keccak

_STRING_ERROR: Final = keccak(b"Error(string)")[:4]
_PANIC: Final = keccak(b"Panic(uint256)")[:4]


@dataclass(frozen=True, slots=True)
class Function:
    """A function's selector and the types of what it takes and returns."""

    name: str
    selector: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def encode(self, *arguments: Any) -> bytes:
        """The call's data; ChainError where an argument does not fit its type."""
        try:
            return self.selector + encode(self.inputs, arguments)
        except (EncodingError, TypeError, ValueError) as error:
            raise ChainError(f"{self.name} does not take these arguments: {error}") from error

    def decode(self, output: bytes) -> tuple[Any, ...]:
        """The returned values; ValueError where ``output`` is not of these types."""
        try:
            return _decoded(self.outputs, output)
        except DecodingError as error:
            raise ValueError(f"{self.name}: {error}") from error


@dataclass(frozen=True, slots=True)
class CustomError:
    """A custom error's name and its arguments' names and types."""

    name: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EventLayout:
    """An event's indexed fields (topics 1 to 3) and those in its data, as (name, type)."""

    name: str
    topic: bytes
    indexed: tuple[tuple[str, str], ...]
    data: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract."""

    functions: dict[str, Function]
    errors: dict[bytes, CustomError]
    events: dict[bytes, EventLayout]
    constructor: tuple[str, ...]
    bytecode: bytes


@functools.cache
def artifact(contract: str = "PoUW") -> Artifact:
    """The artifact that the package carries for ``contract``."""
    file = resources.files("pouw.chain") / "artifacts" / f"{contract}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    entries: dict[str, list[dict[str, Any]]] = {}
    for entry in content["abi"]:
        entries.setdefault(entry["type"], []).append(entry)
    return Artifact(
        functions={entry["name"]: _function(entry) for entry in entries.get("function", [])},
        errors={
            _digest(entry)[:4]: CustomError(entry["name"], _fields(entry["inputs"]))
            for entry in entries.get("error", [])
        },
        events={_digest(entry): _event(entry) for entry in entries.get("event", [])},
        constructor=tuple(
            _type(item) for entry in entries.get("constructor", []) for item in entry["inputs"]
        ),
        bytecode=bytes.fromhex(content["bytecode"].removeprefix("0x")),
    )


def _function(entry: dict[str, Any]) -> Function:
    return Function(
        entry["name"],
        _digest(entry)[:4],
        tuple(_type(item) for item in entry["inputs"]),
        tuple(_type(item) for item in entry["outputs"]),
    )


def _event(entry: dict[str, Any]) -> EventLayout:
    return EventLayout(
        entry["name"],
        _digest(entry),
        _fields(item for item in entry["inputs"] if item["indexed"]),
        _fields(item for item in entry["inputs"] if not item["indexed"]),
    )


def _fields(items: Iterable[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((item["name"], _type(item)) for item in items)


def _digest(entry: dict[str, Any]) -> bytes:
    types = ",".join(_type(item) for item in entry["inputs"])
    return keccak(f"{entry['name']}({types})".encode())


def _type(item: dict[str, Any]) -> str:
    kind: str = item["type"]
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(_type(part) for part in item["components"]) + ")" + kind[5:]


def reverted(data: bytes | None) -> Reverted:
    """The error that a call's revert bytes stand for, with what to do about it."""
    if not data:
        return Reverted("without a reason", hint="is the contract there, and the gas enough?")
    selector, body = data[:4], data[4:]
    try:
        if selector == _STRING_ERROR:
            (reason,) = _decoded(["string"], body)
            return Reverted("Error", {"reason": str(reason)[:300]})
        if selector == _PANIC:
            (code,) = _decoded(["uint256"], body)
            return Reverted("Panic", {"code": int(code)})
        error = artifact().errors.get(selector)
        if error is None:
            return Reverted("unknown error", {"data": "0x" + data[:68].hex()})
        values = _decoded([kind for _, kind in error.fields], body)
    except DecodingError:
        return Reverted("malformed error", {"data": "0x" + data[:68].hex()})
    arguments = {
        name: _readable(kind, value)
        for (name, kind), value in zip(error.fields, values, strict=True)
    }
    return Reverted(error.name, arguments, hint=HINTS.get(error.name))


def _decoded(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    if len(data) % 32:
        raise DecodingError(f"{len(data)} bytes are not whole words")
    return tuple(decode(types, data))


def _readable(kind: str, value: Any) -> Any:
    if kind == "address":
        return to_checksum_address(value)
    return "0x" + value.hex() if isinstance(value, bytes) else value


HINTS: Final = {
    "AlreadyVoted": "each oracle votes once a round; nothing to do",
    "ClaimTooLow": "claim at least the task's minimum score, or do not reveal",
    "CommitmentMismatch": "reveal exactly the manifest and salt of the last commitment",
    "InvalidParameter": "correct this parameter of the deployment",
    "InvalidReceiver": "withdraw to an address of your own",
    "InvalidScore": "scores are parts per million, at most 1,000,000",
    "InvalidSignature": "sign with the miner's own account, for this chain and contract",
    "InvalidVerdict": "Winner names a miner who revealed; other verdicts name nobody",
    "NotArbiter": "only the arbiter of the deployment rules",
    "NotChallengeable": "the arena has no arbiter, or the round is challenged already",
    "NotClosed": "wait until the round is decided and finalize it first",
    "NotDecided": "wait until the round's windows are over",
    "NotLive": "the round is over or has not begun; `pouw status` names the live one",
    "NotOracle": "use an account of the committee",
    "NotPublisher": "use the account that published the task",
    "NotRulable": "the round was not challenged, or is ruled on already",
    "NothingCommitted": "commit in Phase 1; a commitment is revealed once",
    "NothingSelected": "the task was dropped, or its turn has not come",
    "NothingToReclaim": "only a revealed bond that was not reclaimed yet comes back",
    "NothingToWithdraw": "the account has no credit",
    "PaymentFailed": "withdraw to an address that accepts the money",
    "RewardTooSmall": "offer at least the arena's minimum reward",
    "SafeERC20FailedOperation": "is there enough of the arena's token, and is it approved?",
    "TaskNotPooled": "the task was selected, dropped or cancelled already",
    "TestAlreadyOpen": "the test key was released already; nothing to do",
    "TestNotOpen": "the publisher has not released the test key",
    "TooEarly": "wait for the window to open; `pouw status` shows when",
    "TooLate": "the window is over; `pouw status` shows the next one",
    "WrongKey": "use the key that was made for this task",
    "WrongPayment": "send exactly the expected amount; the arena's parameters fix the bonds",
}
