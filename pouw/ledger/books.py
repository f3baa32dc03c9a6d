"""What every call of the model touches: the clock, the log, the money.

Split from ``pouw.ledger.model`` so that the rules there read without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pouw import events
from pouw.errors import LedgerError, Reverted
from pouw.hashing import keccak
from pouw.types import ZERO_ADDRESS, Address


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, when (seconds), and the ETH it brings; ``payment`` None: exactly what is asked."""

    sender: Address
    time: int
    payment: int | None = None


class Books:
    """Clock, log and accounts of one arena; ``balance`` is what the contract holds.

    Every call stands in a block of its own, whose hashes are made up from its number.
    """

    def __init__(self, asset: Address) -> None:
        self.asset = asset
        self.time = 0
        self.balance = 0
        self.credits: Counter[Address] = Counter()
        self.events: list[events.Event] = []
        self._block = 0
        self._logs = 0

    def begin(self, call: Call) -> None:
        """Start a block at the call's time; LedgerError where time would run backwards."""
        if call.time < self.time:
            raise LedgerError(f"time runs backwards: {call.time} after {self.time}")
        self.time = call.time
        self._block += 1
        self._logs = 0

    def take(self, call: Call, amount: int) -> None:
        """Receive exactly ``amount`` of the asset; the last requirement of a call that pays."""
        expected = amount if self.asset == ZERO_ADDRESS else 0
        if call.payment is not None and call.payment != expected:
            raise Reverted("WrongPayment", {"sent": call.payment, "expected": expected})
        self.balance += amount

    def credit(self, amounts: Mapping[Address, int]) -> None:
        """Let accounts withdraw more; nothing is logged for nothing."""
        for account, amount in amounts.items():
            if amount:
                self.credits[account] += amount
                self.log(events.Credited, account=account, amount=amount)

    def pay_out(self, account: Address) -> int:
        """Hand out the account's whole credit."""
        amount = self.credits.pop(account)
        self.balance -= amount
        return amount

    def log(self, kind: type[events.Event], **fields: Any) -> None:
        """Append one event of the current block."""
        number = self._block.to_bytes(8, "big")
        self.events.append(
            kind(
                block_number=self._block,
                block_hash=keccak(b"block" + number),
                log_index=self._logs,
                transaction_hash=keccak(b"transaction" + number),
                **fields,
            )
        )
        self._logs += 1
