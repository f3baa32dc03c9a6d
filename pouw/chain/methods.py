"""The JSON-RPC methods of the embedded chain: parameters in, JSON out, one error type."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from eth.constants import CREATE_CONTRACT_ADDRESS
from eth_utils import to_canonical_address

from pouw import __version__
from pouw.chain import forms
from pouw.chain.devchain import DevChain
from pouw.chain.evm import TRANSACTION_GAS, Block, Refused
from pouw.chain.execution import Call, Outcome, estimate, execute

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
SERVER_ERROR: Final = -32000
LIMIT_EXCEEDED: Final = -32005
REVERTED: Final = 3
MAX_LOGS: Final = 10_000
PRIORITY_FEE_WEI: Final = 10**9
_MAX_ANSWERED: Final = 1024
_MAX_FORWARD_SECONDS: Final = 100 * 365 * 86_400
_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")


class RpcError(Exception):
    """An error member of a JSON-RPC answer."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    def form(self) -> dict[str, Any]:
        """The error object."""
        form: dict[str, Any] = {"code": self.code, "message": str(self)}
        return form if self.data is None else form | {"data": self.data}


class Methods:
    """``answer(method, params)`` over one chain; the caller holds the lock."""

    def __init__(self, chain: DevChain) -> None:
        self._chain = chain
        # Roles ask the same of the same block; a closed block's answer never changes.
        self._answered: dict[tuple[int, Call], Outcome] = {}
        self._table: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: f"pouw-devnet/{__version__}",
            "net_version": lambda: str(chain.evm.chain_id),
            "net_listening": lambda: True,
            "eth_chainId": lambda: forms.quantity(chain.evm.chain_id),
            "eth_syncing": lambda: False,
            "eth_accounts": list,
            "eth_blockNumber": lambda: forms.quantity(chain.evm.head.block_number),
            "eth_gasPrice": lambda: forms.quantity(self._base_fee() + PRIORITY_FEE_WEI),
            "eth_maxPriorityFeePerGas": lambda: forms.quantity(PRIORITY_FEE_WEI),
            "eth_feeHistory": self.fee_history,
            "eth_getBlockByNumber": self.block_by_number,
            "eth_getBlockByHash": self.block_by_hash,
            "eth_getBalance": self.balance,
            "eth_getCode": self.code,
            "eth_getStorageAt": self.storage,
            "eth_getTransactionCount": self.transaction_count,
            "eth_getTransactionByHash": self.transaction,
            "eth_getTransactionReceipt": self.receipt,
            "eth_getLogs": self.logs,
            "eth_call": self.call,
            "eth_estimateGas": self.estimate_gas,
            "eth_sendRawTransaction": self.send,
            "evm_increaseTime": self.increase_time,
            "evm_mine": self.mine,
        }

    def answer(self, method: str, params: list[Any]) -> Any:
        """The result of ``method``; RpcError where it has none."""
        function = self._table.get(method)
        if function is None:
            raise RpcError(METHOD_NOT_FOUND, f"the method {method} does not exist")
        try:
            return function(*params)
        except Refused as error:
            raise RpcError(SERVER_ERROR, str(error)) from error
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                raise RpcError(INVALID_PARAMS, "wrong number of parameters") from error
            raise

    def _base_fee(self) -> int:
        return int(self._chain.pending_block().header.base_fee_per_gas or 0)

    def fee_history(self, count: Any, newest: Any, percentiles: Any = None) -> dict[str, Any]:
        """Base fees and gas ratios of the last ``count`` blocks, and the next base fee."""
        last = self._number(newest)
        last = self._chain.evm.head.block_number if last is None else last
        wanted = min(max(_quantity(count), 1), 1024)
        blocks = self._chain.evm.blocks[max(0, last + 1 - wanted) : last + 1]
        fees = [int(block.header.base_fee_per_gas or 0) for block in blocks]
        columns = len(percentiles) if isinstance(percentiles, list) else 0
        return {
            "oldestBlock": forms.quantity(blocks[0].header.block_number),
            "baseFeePerGas": [forms.quantity(fee) for fee in [*fees, self._base_fee()]],
            "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
            "reward": [[forms.quantity(PRIORITY_FEE_WEI)] * columns for _ in blocks],
        }

    def _number(self, tag: Any) -> int | None:
        """The block that ``tag`` names; None: pending."""
        head = int(self._chain.evm.head.block_number)
        if tag is None or tag in ("latest", "safe", "finalized"):
            return head
        if tag == "pending":
            return None
        if tag == "earliest":
            return 0
        if isinstance(tag, dict) and "blockHash" in tag:
            number = self._chain.number_of(_data(tag["blockHash"], 32))
        else:
            number = _quantity(tag.get("blockNumber") if isinstance(tag, dict) else tag)
        if number is None or number > head:
            raise RpcError(SERVER_ERROR, "header not found")
        return number

    def block_by_number(self, tag: Any, full: Any = False) -> dict[str, Any] | None:
        """The block at a number or tag, None where there is none yet."""
        if isinstance(tag, str) and _QUANTITY.fullmatch(tag):
            number: int | None = int(tag, 16)
            if int(tag, 16) > self._chain.evm.head.block_number:
                return None
        else:
            number = self._number(tag)
        if number is None:
            return forms.block_form(self._chain.pending_block(), full=bool(full), pending=True)
        return forms.block_form(self._chain.evm.blocks[number], full=bool(full))

    def block_by_hash(self, digest: Any, full: Any = False) -> dict[str, Any] | None:
        """The block with a hash, None where there is none."""
        number = self._chain.number_of(_data(digest, 32))
        if number is None:
            return None
        return forms.block_form(self._chain.evm.blocks[number], full=bool(full))

    def balance(self, account: Any, tag: Any = None) -> str:
        """Balance in wei."""
        with self._chain.state(self._number(tag)) as state:
            return forms.quantity(state.get_balance(_address(account)))

    def code(self, account: Any, tag: Any = None) -> str:
        """Runtime code."""
        with self._chain.state(self._number(tag)) as state:
            return forms.data(state.get_code(_address(account)))

    def storage(self, account: Any, slot: Any, tag: Any = None) -> str:
        """One word of storage."""
        position = _quantity(slot)
        with self._chain.state(self._number(tag)) as state:
            value = state.get_storage(_address(account), position)
        return forms.data(value.to_bytes(32, "big"))

    def transaction_count(self, account: Any, tag: Any = None) -> str:
        """Number of transactions sent, that is the next transaction's count."""
        with self._chain.state(self._number(tag)) as state:
            return forms.quantity(state.get_nonce(_address(account)))

    def transaction(self, digest: Any) -> dict[str, Any] | None:
        """A transaction, in a closed block or the one being built."""
        wanted = _data(digest, 32)
        place = self._chain.place_of(wanted)
        if place is None:
            pending = self._chain.pending_transaction(wanted)
            return None if pending is None else forms.transaction_form(pending, None, 0)
        block = self._chain.evm.blocks[place[0]]
        return forms.transaction_form(block.included[place[1]], block.header, place[1])

    def receipt(self, digest: Any) -> dict[str, Any] | None:
        """A receipt, once the block is closed."""
        place = self._chain.place_of(_data(digest, 32))
        if place is None:
            return None
        number, index = place
        block: Block = self._chain.evm.blocks[number]
        return forms.receipt_form(block, index, self._chain.logs_of(number)[index])

    def logs(self, query: Any) -> list[dict[str, Any]]:
        """Logs by address, topics and range of blocks; at most 10,000 in one answer."""
        if not isinstance(query, dict):
            raise RpcError(INVALID_PARAMS, "the filter is an object")
        head = int(self._chain.evm.head.block_number)
        if "blockHash" in query:
            first = last = self._number({"blockHash": query["blockHash"]}) or 0
        else:
            first, last = (self._bound(query.get(key), head) for key in ("fromBlock", "toBlock"))
        addresses = _one_of(query.get("address"), 20)
        topics = query.get("topics") or []
        if not isinstance(topics, list) or len(topics) > 4:
            raise RpcError(INVALID_PARAMS, "topics is a list of at most four")
        wanted = [_one_of(topic, 32) for topic in topics]
        found = []
        for log in self._chain.logs(first, last):
            if addresses is not None and log["address"].lower() not in addresses:
                continue
            own = log["topics"]
            if len(own) < len(wanted) or any(
                choice is not None and own[position] not in choice
                for position, choice in enumerate(wanted)
            ):
                continue
            found.append(log)
            if len(found) > MAX_LOGS:
                raise RpcError(LIMIT_EXCEEDED, f"query returned more than {MAX_LOGS} results")
        return found

    def _bound(self, tag: Any, head: int) -> int:
        if isinstance(tag, str) and _QUANTITY.fullmatch(tag):
            return min(int(tag, 16), head + 1)
        number = self._number(tag)
        return head if number is None else number

    def call(self, message: Any, tag: Any = None, *_overrides: Any) -> str:
        """What a call returns; an error with the revert's bytes where it reverts."""
        call, number = _call(message), self._number(tag)
        if number is None:
            with self._chain.state(None) as state:
                return forms.data(_output(execute(state, call)))
        outcome = self._answered.get((number, call))
        if outcome is None:
            with self._chain.state(number) as state:
                outcome = execute(state, call)
            if len(self._answered) >= _MAX_ANSWERED:
                self._answered.clear()
            self._answered[number, call] = outcome
        return forms.data(_output(outcome))

    def estimate_gas(self, message: Any, tag: Any = "pending", *_overrides: Any) -> str:
        """The gas a transaction needs; an error with the revert's bytes where it reverts."""
        call = _call(message)
        with self._chain.state(self._number(tag)) as state:
            gas, outcome = estimate(state, call)
        _output(outcome)
        return forms.quantity(gas)

    def send(self, raw: Any) -> str:
        """Take a signed transaction; returns its hash."""
        return forms.data(self._chain.submit(_data(raw)))

    def increase_time(self, seconds: Any) -> int:
        """Put the chain's clock forward."""
        forward = _quantity(seconds)
        if forward > _MAX_FORWARD_SECONDS:
            raise RpcError(INVALID_PARAMS, "too far")
        return self._chain.increase_time(forward)

    def mine(self, *_options: Any) -> str:
        """Close a block at the present time."""
        self._chain.mine()
        return "0x0"


def _output(outcome: Outcome) -> bytes:
    if outcome.error is None:
        return outcome.output
    if outcome.reverted:
        raise RpcError(REVERTED, outcome.error, forms.data(outcome.output))
    raise RpcError(SERVER_ERROR, outcome.error)


def _quantity(value: Any) -> int:
    if isinstance(value, bool):
        raise RpcError(INVALID_PARAMS, "not a quantity: a boolean")
    if isinstance(value, int) and 0 <= value < 1 << 256:
        return value
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise RpcError(INVALID_PARAMS, f"not a quantity: {str(value)[:80]!r}")


def _data(value: Any, size: int | None = None) -> bytes:
    shown = repr(str(value)[:80])
    if not isinstance(value, str) or not value.startswith("0x"):
        raise RpcError(INVALID_PARAMS, f"not hexadecimal data: {shown}")
    try:
        decoded = bytes.fromhex(value[2:])
    except ValueError as error:
        raise RpcError(INVALID_PARAMS, f"not hexadecimal data: {shown}") from error
    if size is not None and len(decoded) != size:
        raise RpcError(INVALID_PARAMS, f"{len(decoded)} bytes, not {size}")
    return decoded


def _address(value: Any) -> Any:
    return to_canonical_address(_data(value, 20))


def _one_of(value: Any, size: int) -> set[str] | None:
    """The choices of a filter in lower-case hexadecimal; None: anything."""
    if value is None:
        return None
    choices = value if isinstance(value, list) else [value]
    return {forms.data(_data(choice, size)) for choice in choices} if choices else None


def _call(message: Any) -> Call:
    if not isinstance(message, dict):
        raise RpcError(INVALID_PARAMS, "the message is an object")
    data = message.get("input", message.get("data"))
    to, gas = message.get("to"), message.get("gas")
    return Call(
        sender=_address(message["from"]) if message.get("from") else bytes(20),
        to=_address(to) if to else CREATE_CONTRACT_ADDRESS,
        data=_data(data) if data else b"",
        value=_quantity(message.get("value") or 0),
        gas=min(_quantity(gas), TRANSACTION_GAS) if gas else TRANSACTION_GAS,
    )
