"""Sign, send, wait, decode: how a transaction gets onto the chain exactly once.

A signed transaction goes to the caller's journal before it leaves, and may be sent again at any
time: the same bytes are the same transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from eth_account.signers.local import LocalAccount
from eth_utils import to_checksum_address

from pouw.chain.abi import reverted
from pouw.chain.rpc import (
    BlockTag,
    Endpoint,
    EndpointRefused,
    as_address,
    as_bytes,
    as_quantity,
    tag,
)
from pouw.errors import ChainError, ChainUnavailable, Reverted, TransactionLost
from pouw.types import Address

TRANSACTION_GAS: Final = 1 << 24  # EIP-7825
SYNC_GAS: Final = 400_000  # what a drop, a selection and a closing cost beyond an estimate
_SPARE_GAS: Final = 30_000  # a slot that somebody else's transaction clears meanwhile
_ATTEMPTS: Final = 8
_POLL_SECONDS: Final = 0.25
_RESEND_SECONDS: Final = 15.0
_DEFAULT_TIP_WEI: Final = 10**9
_KNOWN: Final = ("already known", "already imported", "alreadyknown", "known transaction")
_COUNT_TAKEN: Final = ("nonce too low", "underpriced", "nonce has already been used")

OnSigned = Callable[[bytes, bytes], None]


@dataclass(frozen=True, slots=True)
class Call:
    """What to send: ``to`` None creates a contract; ``value_wei`` goes along, ``spare_gas`` on top.

    ``name`` is for messages.
    """

    name: str
    to: Address | None
    data: bytes
    value_wei: int = 0
    spare_gas: int = _SPARE_GAS

    def message(self, sender: Address) -> dict[str, Any]:
        """The message as ``eth_call`` and ``eth_estimateGas`` take it."""
        form: dict[str, Any] = {"from": sender, "data": "0x" + self.data.hex()}
        if self.to is not None:
            form["to"] = self.to
        return form | {"value": hex(self.value_wei)} if self.value_wei else form


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transaction that was executed; ``logs`` as the endpoint gave them."""

    transaction_hash: bytes
    block_number: int
    block_hash: bytes
    succeeded: bool
    gas_used: int
    fee_wei: int
    created: Address | None
    logs: tuple[Any, ...]


def call(endpoint: Endpoint, message: dict[str, Any], block: BlockTag = "latest") -> bytes:
    """What an ``eth_call`` returns; Reverted with the custom error where it reverts."""
    try:
        return endpoint.data("eth_call", message, tag(block))
    except EndpointRefused as error:
        raise _as_revert(error) from error


def _as_revert(error: EndpointRefused) -> ChainError:
    """The revert that an endpoint's error stands for, or the error itself where it is none."""
    if error.data:
        return reverted(error.data)
    if error.code == 3 or "revert" in error.message.lower():
        return reverted(None)
    return error


class Sender:
    """One account's way onto the chain; safe to share between threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        account: LocalAccount,
        on_signed: OnSigned | None = None,
        confirmations: int = 1,
        timeout_seconds: float = 180.0,
    ) -> None:
        self.endpoint = endpoint
        self.account = account
        self.address = Address(to_checksum_address(account.address))
        self._on_signed = on_signed
        self._confirmations = max(1, confirmations)
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._next_count = 0

    def transact(self, what: Call) -> Receipt:
        """Send ``what`` and wait for it; Reverted, TransactionLost or ChainUnavailable if not."""
        digest, raw = self.send(what)
        receipt = self.wait(digest, raw)
        if not receipt.succeeded:
            raise self._why(what, receipt)
        return receipt

    def send(self, what: Call) -> tuple[bytes, bytes]:
        """Estimate, sign, journal and send ``what``; returns hash and raw transaction at once.

        Reverted where the contract would refuse it now.
        """
        with self._lock:
            gas = self._gas(what)
            for _ in range(_ATTEMPTS):
                count = max(self._next_count, self._pending_count())
                digest, raw = self._sign(what, gas, count)
                if self._on_signed is not None:
                    self._on_signed(digest, raw)
                try:
                    self.resend(digest, raw)
                except EndpointRefused as error:
                    if not any(words in error.message.lower() for words in _COUNT_TAKEN):
                        raise self._refusal(error) from error
                    # Another process of this account was faster: take the next count.
                    self._next_count = 0
                    time.sleep(_POLL_SECONDS)
                    continue
                self._next_count = count + 1
                return digest, raw
        raise TransactionLost(
            f"{what.name} could not be sent: other transactions of {self.address} keep coming",
            hint="use one account for one role",
        )

    def resend(self, digest: bytes, raw: bytes) -> None:
        """Send a signed transaction, for the first time or again; 'already known' is success."""
        try:
            answer = self.endpoint.request("eth_sendRawTransaction", "0x" + raw.hex())
        except EndpointRefused as error:
            words = error.message.lower()
            if any(known in words for known in _KNOWN) or self._found(digest):
                return
            raise
        wrong = self.endpoint.malformed("eth_sendRawTransaction")
        if as_bytes(answer, wrong, 32) != digest:
            raise wrong

    def receipt(self, digest: bytes) -> Receipt | None:
        """The receipt of a transaction that is in a block, confirmed or not."""
        method = "eth_getTransactionReceipt"
        answer = self.endpoint.request(method, "0x" + digest.hex())
        if answer is None:
            return None
        try:
            return _receipt(answer, digest, self.endpoint.malformed(method))
        except (KeyError, TypeError) as error:
            raise self.endpoint.malformed(method) from error

    def wait(self, digest: bytes, raw: bytes | None = None) -> Receipt:
        """The receipt once it has the configured confirmations; sends ``raw`` again meanwhile.

        TransactionLost where it does not come within the time limit.
        """
        begin = sent = time.monotonic()
        while True:
            receipt = self.receipt(digest)
            if receipt is not None and self._is_confirmed(receipt):
                return receipt
            now = time.monotonic()
            if now - begin > self._timeout_seconds:
                with self._lock:
                    self._next_count = 0
                raise TransactionLost(
                    f"transaction 0x{digest.hex()} was sent and is not confirmed "
                    f"after {self._timeout_seconds:.0f} s",
                    hint="it may still come; run the command again to look for it",
                )
            if receipt is None and raw is not None and now - sent > _RESEND_SECONDS:
                sent = now
                self._send_again(digest, raw)
            time.sleep(_POLL_SECONDS)

    def _send_again(self, digest: bytes, raw: bytes) -> None:
        try:
            self.resend(digest, raw)
        except EndpointRefused:
            # The receipt decides: the count may be taken by this very transaction by now.
            return

    def _is_confirmed(self, receipt: Receipt) -> bool:
        last = receipt.block_number + self._confirmations - 1
        return self._confirmations == 1 or self.endpoint.block_number() >= last

    def _found(self, digest: bytes) -> bool:
        answer = self.endpoint.request("eth_getTransactionByHash", "0x" + digest.hex())
        return answer is not None

    def _pending_count(self) -> int:
        return self.endpoint.quantity("eth_getTransactionCount", self.address, "pending")

    def _gas(self, what: Call) -> int:
        message = what.message(self.address)
        try:
            gas = self.endpoint.quantity("eth_estimateGas", message, "pending")
        except EndpointRefused as error:
            raise self._refusal(error) from error
        return min(gas + what.spare_gas, TRANSACTION_GAS)

    def _refusal(self, error: EndpointRefused) -> ChainError:
        if "insufficient funds" in error.message.lower():
            return ChainError(
                f"{self.address} cannot pay for this: {error.message[:200]}",
                hint="send it some ether, for the amount and for gas",
            )
        return _as_revert(error)

    def _fees(self) -> tuple[int, int]:
        """Most wei a unit of gas in all and for the block's producer: twice the base fee."""
        method = "eth_getBlockByNumber"
        block = self.endpoint.block("latest")
        base = as_quantity(block.get("baseFeePerGas", 0), self.endpoint.malformed(method))
        try:
            tip = self.endpoint.quantity("eth_maxPriorityFeePerGas")
        except EndpointRefused:
            tip = _DEFAULT_TIP_WEI
        return 2 * base + tip, tip

    def _sign(self, what: Call, gas: int, count: int) -> tuple[bytes, bytes]:
        most, tip = self._fees()
        form: dict[str, Any] = {
            "type": 2,
            "chainId": self.endpoint.chain_id(),
            "nonce": count,
            "gas": gas,
            "maxFeePerGas": most,
            "maxPriorityFeePerGas": tip,
            "value": what.value_wei,
            "data": what.data,
            "to": what.to if what.to is not None else b"",
        }
        signed = self.account.sign_transaction(form)
        return bytes(signed.hash), bytes(signed.raw_transaction)

    def _why(self, what: Call, receipt: Receipt) -> Reverted:
        """Why an included transaction failed: the same call once more, where it was executed."""
        message = what.message(self.address) | {"gas": hex(TRANSACTION_GAS)}
        for number in (receipt.block_number, receipt.block_number - 1):
            try:
                call(self.endpoint, message, number)
            except Reverted as error:
                return error
            except ChainUnavailable:
                break
        return Reverted(
            f"{what.name} without a reason",
            {"transaction": "0x" + receipt.transaction_hash.hex(), "gas_used": receipt.gas_used},
            hint="it may have run out of gas; try again",
        )


def _receipt(answer: Any, digest: bytes, wrong: ChainUnavailable) -> Receipt:
    gas_used = as_quantity(answer["gasUsed"], wrong)
    created, logs = answer.get("contractAddress"), answer["logs"]
    if as_bytes(answer["transactionHash"], wrong, 32) != digest or not isinstance(
        logs, list | tuple
    ):
        raise wrong
    return Receipt(
        transaction_hash=digest,
        block_number=as_quantity(answer["blockNumber"], wrong),
        block_hash=as_bytes(answer["blockHash"], wrong, 32),
        succeeded=as_quantity(answer["status"], wrong) == 1,
        gas_used=gas_used,
        fee_wei=gas_used * as_quantity(answer.get("effectiveGasPrice", 0), wrong),
        created=None if created is None else as_address(str(created)),
        logs=tuple(logs),
    )
