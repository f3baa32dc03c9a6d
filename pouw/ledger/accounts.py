"""Credits under replay: what each transaction's events owe against what it credited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pouw import events
from pouw.ledger.history import Finding, Rule
from pouw.types import Address, RoundNumber, TaskId


class Accounts:
    """Running credits, settled transaction by transaction.

    Amounts are compared per account and transaction, so that it does not matter in how many
    ``Credited`` events the contract splits them.
    """

    def __init__(self) -> None:
        self.transaction = b""
        self._credits: Counter[Address] = Counter()
        self._due: Counter[Address] = Counter()
        self._paid: Counter[Address] = Counter()
        self._cause: tuple[RoundNumber | None, TaskId | None] = (None, None)
        self._known = True

    @property
    def credits(self) -> dict[Address, int]:
        """What each account can withdraw; ``ZERO_ADDRESS``: what was burned."""
        return {account: amount for account, amount in self._credits.items() if amount}

    def begin(self, transaction: bytes) -> None:
        """Start the next transaction."""
        self.transaction = transaction
        self._due, self._paid = Counter(), Counter()
        self._cause, self._known = (None, None), True

    def owe(self, due: Mapping[Address, int], number: RoundNumber, task_id: TaskId) -> None:
        """An event of this transaction makes the contract credit ``due``."""
        self._due.update(due)
        self._cause = (number, task_id)

    def owe_unknown(self) -> None:
        """What this transaction has to credit cannot be told: the logs before it have a gap."""
        self._known = False

    def credited(self, event: events.Credited) -> None:
        """Book a credit."""
        self._paid[event.account] += event.amount
        self._credits[event.account] += event.amount

    def withdrawn(self, event: events.Withdrawn) -> list[Finding]:
        """Book a withdrawal, which takes the whole credit."""
        credit = self._credits.pop(event.account, 0)
        if event.amount == credit:
            return []
        detail = f"{event.account} took {event.amount} of a credit of {credit}"
        return [Finding(None, None, Rule.WITHDRAWAL, detail)]

    def unsettled(self, latest: RoundNumber) -> list[Finding]:
        """Accounts that the transaction credited otherwise than its events owe.

        ``latest``: the round to name where nothing in the transaction owed anything.
        """
        if not self._known:
            return []
        number, task_id = self._cause
        return [
            Finding(
                latest if number is None else number,
                task_id,
                Rule.PAYOUT,
                f"{account} was credited {self._paid[account]}, not {self._due[account]}",
            )
            for account in sorted({*self._due, *self._paid})
            if self._paid[account] != self._due[account]
        ]
