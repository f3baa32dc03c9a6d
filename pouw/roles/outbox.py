"""Signed transactions in a role's journal, from before they leave until they are confirmed."""

from __future__ import annotations

from pouw.chain.outgoing import Signed
from pouw.journal import Journal

_SPACE = "outbox"


class JournalOutbox:
    """An `Outbox`; a process that was killed finds in it what may still be on its way."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def keep(self, signed: Signed) -> None:
        """On the disk when it returns."""
        self._journal.put(_SPACE, signed.digest.hex(), signed.raw.hex())

    def forget(self, signed: Signed) -> None:
        """It can be included no more, or its confirmation has been seen."""
        self._journal.delete(_SPACE, signed.digest.hex())

    def kept(self) -> list[Signed]:
        """Every variant that was kept and not forgotten."""
        return [Signed.decode(bytes.fromhex(raw)) for _, raw in self._journal.items(_SPACE)]
