"""Carries one account's signed transactions to the chain, and keeps at it until they are there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from eth_account.signers.local import LocalAccount
from eth_utils import to_checksum_address

from pouw.chain.fees import GWEI, Fees
from pouw.chain.outgoing import Outbox, Outgoing, Policy, Signed
from pouw.chain.rpc import (
    BlockTag,
    Endpoint,
    EndpointRefused,
    as_address,
    as_bytes,
    as_quantity,
)
from pouw.errors import ChainUnavailable
from pouw.types import Address

_DEFAULT_TIP_WEI: Final = GWEI
_TRANSFER_GAS: Final = 21_000
_COUNT_TAKEN: Final = ("nonce too low", "oldnonce", "nonce has already been used", "replac")
_KNOWN: Final = ("already known", "already imported", "alreadyknown", "known transaction")


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


class Carrier:
    """The transactions of one account that are on their way; its caller sees to threads.

    With an ``outbox`` every variant is kept there before it leaves, and a new carrier takes up
    what an earlier one left behind.
    """

    def __init__(
        self, endpoint: Endpoint, account: LocalAccount, outbox: Outbox | None, policy: Policy
    ) -> None:
        self.endpoint = endpoint
        self.account = account
        self.address = Address(to_checksum_address(account.address))
        self.policy = policy
        self._outbox = outbox
        self._outgoing: dict[int, Outgoing] | None = None

    def outgoing(self) -> dict[int, Outgoing]:
        """What was sent and is not confirmed, by count; at first what the outbox kept."""
        if self._outgoing is None:
            self._outgoing = self._taken_up()
        return self._outgoing

    def _taken_up(self) -> dict[int, Outgoing]:
        outgoing: dict[int, Outgoing] = {}
        kept = self._kept()
        used, block = (self.count("latest"), self.endpoint.block_number()) if kept else (0, 0)
        for signed in kept:
            if signed.count < used:
                self._drop(signed)
            elif signed.count in outgoing:
                outgoing[signed.count].variants.append(signed)
            else:
                outgoing[signed.count] = Outgoing([signed], block=block, abandoned=True)
        return outgoing

    def _kept(self) -> list[Signed]:
        """This account's variants in the outbox, by count and fees."""
        if self._outbox is None:
            return []
        chain_id = self.endpoint.chain_id()
        own = [
            signed
            for signed in self._outbox.kept()
            if signed.chain_id == chain_id and signed.sender == self.address
        ]
        return sorted(own, key=lambda signed: (signed.count, signed.fees.most_wei))

    def _drop(self, signed: Signed) -> None:
        if self._outbox is not None:
            self._outbox.forget(signed)

    def forget(self, out: Outgoing) -> None:
        """Its fate is known: keep it no longer."""
        self.outgoing().pop(out.count, None)
        for signed in out.variants:
            self._drop(signed)

    def leave(self, out: Outgoing, *, kept: bool = False) -> None:
        """Send the last variant, once it is in the outbox."""
        if self._outbox is not None and not kept:
            self._outbox.keep(out.last)
        out.block = self.endpoint.block_number()
        self.resend(out.last)
        out.left = time.monotonic()

    def tend(self, outgoing: Iterable[Outgoing]) -> None:
        """Send again what has waited for too long, the lowest count first.

        What nobody has and nobody takes any more is forgotten, so that its count is free again.
        """
        now = time.monotonic()
        waiting = [out for out in outgoing if out.refused is None]
        due = [out for out in waiting if now - out.left >= self.policy.patience_seconds]
        if not due:
            return
        used = self.count("latest")
        for out in sorted(due, key=lambda out: out.count):
            if out.count >= used:
                out.taken = None
                self._offer(out)
            elif out.taken is None:
                out.taken = now
                known = {signed.digest for signed in out.variants}
                # Another process with this outbox may have raised its fees.
                out.variants[:0] = [
                    signed
                    for signed in self._kept()
                    if signed.count == out.count and signed.digest not in known
                ]
        self._close_gap()

    def _offer(self, out: Outgoing) -> None:
        """Send it again: for more where a block came since it left and did not take it."""
        passed_over = self.endpoint.block_number() > out.block
        limit_wei = self.policy.max_fee_wei
        fees = out.last.fees.raised(self.fees(), limit_wei) if passed_over else None
        if fees is not None:
            out.variants.append(out.last.again(self.account, fees))
        try:
            self.leave(out, kept=fees is None)
        except EndpointRefused as error:
            out.left = time.monotonic()
            # A variant with more may be there, or one included: the receipts decide then. One node
            # behind an endpoint may know of that what another does not.
            if not says_count_taken(error) and self._is_nowhere(out):
                self.forget(out)
                out.refused = error

    def _is_nowhere(self, out: Outgoing) -> bool:
        """Whether the endpoint has no variant of it, nor anything else of its count."""
        free = self.count("pending") <= out.count
        return free and not any(self.found(signed.digest) for signed in out.variants)

    def _close_gap(self) -> None:
        """Use the lowest count that nobody has where others wait behind it, in vain otherwise.

        By a transfer of nothing: one of those sent again with that count could come twice.
        """
        free = self.count("pending")
        waiting = [count for count in self.outgoing() if count >= free]
        if free >= min(waiting, default=free):
            return
        form: dict[str, Any] = {
            "type": 2,
            "chainId": self.endpoint.chain_id(),
            "nonce": free,
            "gas": _TRANSFER_GAS,
            "to": self.address,
        }
        empty = Outgoing([Signed.sign(self.account, form, self.fees())], abandoned=True)
        self.outgoing()[free] = empty
        try:
            self.leave(empty)
        except EndpointRefused:
            self.forget(empty)

    def receipt_of(self, out: Outgoing) -> Receipt | None:
        """The receipt of whichever variant is in a block, confirmed or not."""
        several = len(out.variants) > 1
        if several and self.count("latest") <= out.count:
            return None
        for signed in reversed(out.variants):
            receipt = self.receipt(signed.digest)
            if receipt is not None:
                return receipt
        return None

    def resend(self, signed: Signed) -> None:
        """Send a signed transaction, for the first time or again; 'already known' is success."""
        try:
            answer = self.endpoint.request("eth_sendRawTransaction", "0x" + signed.raw.hex())
        except EndpointRefused as error:
            words = error.message.lower()
            if any(known in words for known in _KNOWN) or self.found(signed.digest):
                return
            raise
        wrong = self.endpoint.malformed("eth_sendRawTransaction")
        if as_bytes(answer, wrong, 32) != signed.digest:
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

    def found(self, digest: bytes) -> bool:
        """Whether the endpoint knows a transaction, in a block or not."""
        answer = self.endpoint.request("eth_getTransactionByHash", "0x" + digest.hex())
        return answer is not None

    def count(self, block: BlockTag) -> int:
        """How many transactions the account has sent, as of ``block``."""
        return self.endpoint.quantity("eth_getTransactionCount", self.address, block)

    def fees(self) -> Fees:
        """What a transaction should offer now."""
        method = "eth_getBlockByNumber"
        block = self.endpoint.block("latest")
        base = as_quantity(block.get("baseFeePerGas", 0), self.endpoint.malformed(method))
        try:
            tip = self.endpoint.quantity("eth_maxPriorityFeePerGas")
        except EndpointRefused:
            tip = _DEFAULT_TIP_WEI
        return Fees.offer(base, tip, self.policy.max_fee_wei)


def says_count_taken(error: EndpointRefused) -> bool:
    """Whether a transaction is refused for another of its count, that waits or is included."""
    return any(words in error.message.lower() for words in _COUNT_TAKEN)


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
