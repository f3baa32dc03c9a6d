"""Transactions between their signature and their confirmation: every variant that was signed.

A transaction that blocks pass over is signed again with the same count and higher fees. At most one
variant of a count can be included, so all of them are kept until one is confirmed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_account.typed_transactions import TypedTransaction
from hexbytes import HexBytes

from pouw.chain.fees import GWEI, Fees
from pouw.chain.rpc import EndpointRefused
from pouw.hashing import keccak
from pouw.types import Address

_SIGNATURE: Final = frozenset({"v", "r", "s"})


@dataclass(frozen=True, slots=True)
class Policy:
    """How an account's transactions are sent.

    ``confirmations``: blocks that make one count, its own included. After ``patience_seconds`` a
    transaction is sent again: for more where a block came and passed it over, ``max_fee_wei`` a
    unit of gas at most. After ``timeout_seconds`` its caller is told that it is lost.
    """

    confirmations: int = 1
    timeout_seconds: float = 180.0
    patience_seconds: float = 24.0
    max_fee_wei: int = 500 * GWEI


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed variant: its hash, its bytes, and what they say."""

    digest: bytes
    raw: bytes
    chain_id: int
    count: int
    fees: Fees
    purpose: tuple[bytes, int, bytes]  # to, value, data

    @classmethod
    def sign(cls, account: LocalAccount, form: dict[str, Any], fees: Fees) -> Signed:
        """``form`` (of EIP-1559, without fees) signed for ``fees``."""
        paid = {"maxFeePerGas": fees.most_wei, "maxPriorityFeePerGas": fees.tip_wei}
        signed = account.sign_transaction(form | paid)
        return cls.decode(bytes(signed.raw_transaction))

    @classmethod
    def decode(cls, raw: bytes) -> Signed:
        """The variant whose bytes these are."""
        form = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        return cls(
            digest=keccak(raw),
            raw=raw,
            chain_id=form["chainId"],
            count=form["nonce"],
            fees=Fees(form["maxFeePerGas"], form["maxPriorityFeePerGas"]),
            purpose=(bytes(form["to"]), form["value"], bytes(form["data"])),
        )

    @property
    def sender(self) -> Address:
        """Who signed it."""
        return Address(Account.recover_transaction(HexBytes(self.raw)))

    def again(self, account: LocalAccount, fees: Fees) -> Signed:
        """The same transaction for other fees."""
        form = TypedTransaction.from_bytes(HexBytes(self.raw)).as_dict()
        kept = {name: value for name, value in form.items() if name not in _SIGNATURE}
        return Signed.sign(account, kept, fees)


class Outbox(Protocol):
    """Where variants outlive the process; ``keep`` returns when it is on the disk."""

    def keep(self, signed: Signed) -> None:
        """Remember a variant before it leaves."""

    def forget(self, signed: Signed) -> None:
        """It can be included no more, or its confirmation has been seen."""

    def kept(self) -> Iterable[Signed]:
        """Every variant that was kept and not forgotten."""


@dataclass(slots=True)
class Outgoing:
    """One count of an account: the variants of its transaction, in the order of their fees.

    The last one left at ``left`` (monotonic seconds), when ``block`` was the latest.
    ``abandoned``: nobody waits for it, as after a crash. ``taken``: since when the chain is known
    to have used the count. ``refused``: why it was given up, where nobody has it any more.
    """

    variants: list[Signed]
    left: float = -math.inf
    block: int = 0
    abandoned: bool = False
    taken: float | None = None
    refused: EndpointRefused | None = None

    @property
    def last(self) -> Signed:
        """The variant with the highest fees."""
        return self.variants[-1]

    @property
    def count(self) -> int:
        """The number of transactions that the account sent before this one."""
        return self.last.count
