"""A chain on a development machine: wall-clock time, waiting transactions, a memory on disk.

A block bears the second in which its transactions were executed and is closed when that second is
over, so no block is ever stamped ahead of the clock unless it was full. Not thread-safe.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from eth.abc import SignedTransactionAPI, StateAPI
from eth_utils import to_canonical_address

from pouw.chain import forms
from pouw.chain.accounts import DEV_ACCOUNTS, DEV_CHAIN_ID, dev_account
from pouw.chain.blocklog import BlockLog, SavedBlock
from pouw.chain.evm import Block, EmbeddedChain, Included, Refused, decode_transaction
from pouw.errors import ChainError

DEV_BALANCE_WEI: Final = 10_000 * 10**18
_MAX_WAITING: Final = 1024


class DevChain:
    """The embedded chain with its clock, its index and its file.

    With ``automine`` every transaction closes its own block at once, as anvil does by default.
    """

    def __init__(
        self, directory: Path, *, automine: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._offset = 0
        self._automine = automine
        self._numbers: dict[bytes, int] = {}
        self._places: dict[bytes, tuple[int, int]] = {}
        self._logs: list[list[list[dict[str, Any]]]] = []
        self._logged: list[int] = []
        self._waiting: dict[bytes, dict[int, tuple[bytes, SignedTransactionAPI]]] = {}
        self._log = BlockLog(directory, DEV_CHAIN_ID, int(clock()))
        balances = {
            bytes(to_canonical_address(dev_account(index).address)): DEV_BALANCE_WEI
            for index in range(DEV_ACCOUNTS)
        }
        self.evm = EmbeddedChain(DEV_CHAIN_ID, self._log.genesis_timestamp, balances)
        self._index(self.evm.blocks[0])
        try:
            self._replay()
        except ChainError:
            self._log.close()
            raise
        self._offset = max(0, self.evm.head.timestamp - int(clock()))

    def _replay(self) -> None:
        for number, saved in enumerate(self._log.blocks(), start=1):
            for raw in saved.transactions:
                transaction = decode_transaction(raw, self.evm.chain_id)
                self.evm.apply(raw, transaction, saved.timestamp)
            block = self.evm.close(saved.timestamp)
            if saved.digest is not None and block.header.hash != saved.digest:
                raise ChainError(
                    f"block {number} does not come out as it was saved",
                    hint="it was written by another version of py-evm; begin a new chain",
                )
            self._index(block)

    def now(self) -> int:
        """The chain's time in seconds since the epoch."""
        return int(self._clock()) + self._offset

    def next_timestamp(self) -> int:
        """The timestamp of the block in which a transaction sent now would be executed."""
        return max(self.now(), int(self.evm.head.timestamp) + 1)

    def increase_time(self, seconds: int) -> int:
        """Put the clock ``seconds`` past now and the head; returns how far forward it is in all."""
        self._offset += seconds + max(0, self.evm.head.timestamp - self.now())
        return self._offset

    def submit(self, raw: bytes) -> bytes:
        """Execute ``raw``, or keep it until the one before it came; returns its hash.

        Refused in the words of other nodes, 'already known' for one that was sent before.
        """
        transaction = decode_transaction(raw, self.evm.chain_id)
        sender = transaction.sender
        waiting = self._waiting.get(sender, {})
        if self._knows(transaction.hash, waiting):
            raise Refused("already known")
        expected = self.nonce(sender)
        if transaction.nonce > expected:
            if sum(map(len, self._waiting.values())) >= _MAX_WAITING:
                raise Refused("txpool is full")
            self._waiting.setdefault(sender, {})[transaction.nonce] = (raw, transaction)
            return transaction.hash
        self._include(raw, transaction)
        self._include_waiting(sender)
        return transaction.hash

    def _knows(self, digest: bytes, waiting: dict[int, tuple[bytes, SignedTransactionAPI]]) -> bool:
        return (
            digest in self._places
            or self.pending_transaction(digest) is not None
            or any(transaction.hash == digest for _, transaction in waiting.values())
        )

    def _include_waiting(self, sender: bytes) -> None:
        """Execute what waited for its turn; what cannot be executed is forgotten."""
        waiting = self._waiting.get(sender, {})
        while (entry := waiting.pop(self.nonce(sender), None)) is not None:
            try:
                self._include(*entry)
            except Refused:
                break
        if not waiting:
            self._waiting.pop(sender, None)

    def _include(self, raw: bytes, transaction: SignedTransactionAPI) -> None:
        building = self.evm.building
        if building is not None and (
            building.header.timestamp < self.now() or not self.evm.room_for(transaction)
        ):
            self._close(building.header.timestamp)
        self.evm.apply(raw, transaction, self.next_timestamp())
        if self._automine:
            self._close(self.evm.head.timestamp)

    def tick(self) -> None:
        """Close the block of a second that is over, empty or not; nothing while it lasts."""
        over = self.now() - 1
        building = self.evm.building
        if building is not None and building.header.timestamp <= over:
            self._close(building.header.timestamp)
        elif building is None and self.evm.head.timestamp < over:
            self._close(over)

    def mine(self) -> None:
        """Close a block now: afterwards the head bears the chain's present time, or more."""
        building = self.evm.building
        if building is not None:
            self._close(building.header.timestamp)
        if building is None or self.evm.head.timestamp < self.now():
            self._close(self.next_timestamp())

    def _close(self, timestamp: int) -> None:
        block = self.evm.close(timestamp)
        raws = tuple(item.raw for item in block.included)
        digest = bytes(block.header.hash) if raws else None
        self._log.append(SavedBlock(block.header.timestamp, raws, digest))
        self._index(block)

    def _index(self, block: Block) -> None:
        number = block.header.block_number
        self._numbers[block.header.hash] = number
        if not block.included:
            return
        for index, item in enumerate(block.included):
            self._places[item.transaction.hash] = (number, index)
        self._logged.append(number)
        self._logs.append(forms.log_forms(block))

    def close(self) -> None:
        """Close the block being built and the file."""
        building = self.evm.building
        if building is not None:
            self._close(building.header.timestamp)
        self._log.close()

    def nonce(self, account: bytes) -> int:
        """Transactions of ``account`` executed so far, those of the open block included."""
        with self.state(None) as state:
            return int(state.get_nonce(to_canonical_address(account)))

    @contextmanager
    def state(self, number: int | None) -> Iterator[StateAPI]:
        """The state after block ``number``; None: pending, in a block that begins now."""
        if number is None:
            with self.evm.pending_state(self.next_timestamp()) as state:
                yield state
        else:
            with self.evm.state_at(number) as state:
                yield state

    def pending_block(self) -> Block:
        """The block being built, or the empty one that would be begun now."""
        return self.evm.building or Block(self.evm.next_header(self.next_timestamp()), ())

    def number_of(self, digest: bytes) -> int | None:
        """The number of the block with that hash."""
        return self._numbers.get(digest)

    def place_of(self, digest: bytes) -> tuple[int, int] | None:
        """Block number and index of a transaction in a closed block."""
        return self._places.get(digest)

    def pending_transaction(self, digest: bytes) -> Included | None:
        """A transaction of the block being built."""
        building = self.evm.building
        included = building.included if building is not None else ()
        return next((item for item in included if item.transaction.hash == digest), None)

    def logs_of(self, number: int) -> list[list[dict[str, Any]]]:
        """The logs of a closed block that has transactions, a list for each of them."""
        return self._logs[bisect_left(self._logged, number)]

    def logs(self, first: int, last: int) -> Iterator[dict[str, Any]]:
        """The logs of blocks ``first`` to ``last``, both included, in order."""
        for block in self._logs[
            bisect_left(self._logged, first) : bisect_right(self._logged, last)
        ]:
            for transaction in block:
                yield from transaction
