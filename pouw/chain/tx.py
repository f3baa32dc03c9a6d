"""Sign, send, wait, decode: how a transaction gets onto the chain exactly once.

A signed transaction is kept on the disk before it leaves, and may be sent again at any time: the
same bytes are the same transaction. One that blocks pass over is signed again, with the same count
and higher fees, up to a limit; whichever variant a block takes is the transaction.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from eth_account.signers.local import LocalAccount
from eth_utils import to_checksum_address

from pouw.chain.abi import reverted
from pouw.chain.carrier import Carrier, Receipt, says_count_taken
from pouw.chain.fees import GWEI
from pouw.chain.outgoing import Outbox, Outgoing, Policy, Signed
from pouw.chain.rpc import BlockTag, Endpoint, EndpointRefused, as_bytes, tag
from pouw.errors import ChainError, ChainUnavailable, Reverted, TransactionLost
from pouw.types import Address

TRANSACTION_GAS: Final = 1 << 24  # EIP-7825
SYNC_GAS: Final = 400_000  # what a drop, a selection and a closing cost beyond an estimate
_SPARE_GAS: Final = 30_000  # a slot that somebody else's transaction clears meanwhile
_ATTEMPTS: Final = 8
_POLL_SECONDS: Final = 0.25
_LAG_SECONDS: Final = 15.0  # by which one node behind an endpoint may know less than another
_USUAL: Final = Policy()


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

    @property
    def purpose(self) -> tuple[bytes, int, bytes]:
        """What a signed transaction says of it: to, value, data."""
        to = b"" if self.to is None else bytes.fromhex(self.to[2:])
        return to, self.value_wei, self.data

    def message(self, sender: Address) -> dict[str, Any]:
        """The message as ``eth_call`` and ``eth_estimateGas`` take it."""
        form: dict[str, Any] = {"from": sender, "data": "0x" + self.data.hex()}
        if self.to is not None:
            form["to"] = self.to
        return form | {"value": hex(self.value_wei)} if self.value_wei else form


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
    """One account's way onto the chain; safe to share between threads.

    With an ``outbox`` whatever is signed is kept there before it leaves, and the next process
    takes up what this one leaves behind.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        account: LocalAccount,
        outbox: Outbox | None = None,
        policy: Policy = _USUAL,
    ) -> None:
        self.endpoint = endpoint
        self.account = account
        self.address = Address(to_checksum_address(account.address))
        self._carrier = Carrier(endpoint, account, outbox, policy)
        self._policy = policy
        self._lock = threading.Lock()
        self._next_count = 0
        self._included: Receipt | None = None

    def transact(self, what: Call) -> Receipt:
        """Send ``what`` and wait for it; Reverted, TransactionLost or ChainUnavailable if not."""
        receipt = self.wait(self.send(what))
        if not receipt.succeeded:
            raise self._why(what, receipt)
        return receipt

    def settle(self) -> None:
        """Wait for whatever an earlier process, or an earlier attempt, left on its way.

        Also for what only the endpoint knows to wait: a reorganisation puts back among those what
        was included, and was forgotten here.
        """
        with self._lock:
            left = [out for out in self._carrier.outgoing().values() if out.abandoned]
        for out in left:
            try:
                self.wait(out)
            except ChainError:
                if self._carrier.outgoing().get(out.count) is out:  # it may still come
                    raise
        begin = time.monotonic()
        while self._carrier.count("pending") > self._carrier.count("latest"):
            if time.monotonic() - begin > self._policy.timeout_seconds:
                raise TransactionLost(
                    f"a transaction of {self.address} waits to be included",
                    hint="wait until it is, or replace it from where it was sent",
                )
            time.sleep(_POLL_SECONDS)

    def send(self, what: Call) -> Outgoing:
        """Estimate, sign, keep and send ``what``; returns at once.

        Reverted where the contract would refuse it now. One that is on its way, is the same to the
        byte and was given up by whoever sent it, is taken for this one.
        """
        with self._lock:
            outgoing = self._carrier.outgoing()
            self._tend(list(outgoing.values()))
            for out in list(outgoing.values()):
                if out.abandoned and out.last.purpose == what.purpose:
                    out.abandoned = False
                    return out
                if out.abandoned and out.taken is not None:
                    self._carrier.forget(out)
            gas = self._gas(what)
            for _ in range(_ATTEMPTS):
                sent = self._send_next(what, gas)
                if sent is not None:
                    return sent
                time.sleep(_POLL_SECONDS)
        raise TransactionLost(
            f"{what.name} could not be sent: other transactions of {self.address} keep coming",
            hint="use one account for one role",
        )

    def _send_next(self, what: Call, gas: int) -> Outgoing | None:
        """Send it with the next count; None where another process of this account was faster."""
        count = self._free_count()
        out = self._carrier.outgoing()[count] = Outgoing([self._signed(what, gas, count)])
        try:
            self._carrier.leave(out)
        except EndpointRefused as error:
            self._carrier.forget(out)
            if not says_count_taken(error):
                raise self._refusal(error) from error
            self._next_count = 0
            return None
        except ChainUnavailable:
            out.abandoned = True
            raise
        self._next_count = count + 1
        return out

    def _free_count(self) -> int:
        """The count after what was sent, even where the endpoint does not know of that yet.

        One that waits keeps its own, also where a reorganisation freed lower ones.
        """
        count = self._carrier.count("pending")
        if count < self._next_count and not self._taken_back():
            count = self._next_count
        while count in self._carrier.outgoing():
            count += 1
        return count

    def _taken_back(self) -> bool:
        """Whether a reorganisation replaced the block of the last transaction that was included."""
        last = self._included
        if last is None or self.endpoint.block_number() < last.block_number:
            return False
        wrong = self.endpoint.malformed("eth_getBlockByNumber")
        block = self.endpoint.block(last.block_number)
        return as_bytes(block.get("hash"), wrong, 32) != last.block_hash

    def gas_wei(self, gas: int) -> int:
        """The most that so much gas would cost in a transaction that is sent now."""
        return gas * self._carrier.fees().most_wei

    def receipt(self, digest: bytes) -> Receipt | None:
        """The receipt of a transaction that is in a block, confirmed or not."""
        return self._carrier.receipt(digest)

    def resend(self, signed: Signed) -> None:
        """Send a signed transaction, for the first time or again; 'already known' is success."""
        self._carrier.resend(signed)

    def wait(self, out: Outgoing) -> Receipt:
        """The receipt of whichever variant was included, once it has enough confirmations.

        What is on its way before it, and it itself, is sent again meanwhile, for more where that
        is needed. TransactionLost where the time limit passes or another took its count, ChainError
        where it is nowhere any more and refused.
        """
        try:
            return self._confirmed(out)
        except ChainError:
            with self._lock:
                self._next_count, out.abandoned = 0, True
            raise

    def _confirmed(self, out: Outgoing) -> Receipt:
        begin = time.monotonic()
        while True:
            receipt = self._carrier.receipt_of(out)
            if receipt is not None and self._is_confirmed(receipt):
                with self._lock:
                    self._carrier.forget(out)
                    self._included = receipt
                return receipt
            if receipt is None:
                self._tend_until(out)
            if time.monotonic() - begin > self._policy.timeout_seconds:
                raise self._lost(out)
            time.sleep(_POLL_SECONDS)

    def _tend(self, outgoing: list[Outgoing]) -> None:
        """Send again what waits for too long."""
        self._carrier.tend(outgoing)
        if any(out.refused for out in outgoing):
            self._next_count = 0  # the count of what was given up is the next one

    def _tend_until(self, out: Outgoing) -> None:
        """Send again what waits for too long: ``out`` and what must be included before it."""
        with self._lock:
            before = [one for one in self._carrier.outgoing().values() if one.count < out.count]
            self._tend([*before, out])
        if out.refused is not None:
            raise self._refusal(out.refused) from out.refused
        if out.taken is not None and time.monotonic() - out.taken > _LAG_SECONDS:
            with self._lock:
                self._carrier.forget(out)
            raise TransactionLost(
                f"another transaction of {self.address} came in place of 0x{out.last.digest.hex()}",
                hint="use one account for one role",
            )

    def _lost(self, out: Outgoing) -> TransactionLost:
        return TransactionLost(
            f"transaction 0x{out.last.digest.hex()} was sent and is not confirmed "
            f"after {self._policy.timeout_seconds:.0f} s",
            hint="it may still come; run the command again to look for it; where gas costs more "
            "than max_fee_gwei allows, raise that",
        )

    def _is_confirmed(self, receipt: Receipt) -> bool:
        confirmations = max(1, self._policy.confirmations)
        last = receipt.block_number + confirmations - 1
        return confirmations == 1 or self.endpoint.block_number() >= last

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
        if "block base fee" in error.message.lower():
            limit = self._policy.max_fee_wei // GWEI
            return ChainError(
                f"gas costs more than {limit} gwei now, which is the most you allow",
                hint="wait, or raise max_fee_gwei",
            )
        return _as_revert(error)

    def _signed(self, what: Call, gas: int, count: int) -> Signed:
        form: dict[str, Any] = {
            "type": 2,
            "chainId": self.endpoint.chain_id(),
            "nonce": count,
            "gas": gas,
            "value": what.value_wei,
            "data": what.data,
            "to": what.to if what.to is not None else b"",
        }
        return Signed.sign(self.account, form, self._carrier.fees())

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
