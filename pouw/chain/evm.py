"""The embedded EVM: py-evm's Cancun state machine, driven block by block in memory.

Not thread-safe: `pouw.chain.devnet` holds one lock around it. A transaction is executed when it
arrives, in a block whose timestamp was fixed before; the block is closed later and never changes.
What the chain is made of (raw transactions and timestamps) determines every hash, so executing it
again gives the same head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import rlp
from eth.abc import BlockHeaderAPI, ReceiptAPI, SignedTransactionAPI, StateAPI
from eth.db.atomic import AtomicDB
from eth.db.trie import make_trie_root_and_nodes
from eth.exceptions import PyEVMError, UnrecognizedTransactionType
from eth.rlp.headers import BlockHeader
from eth.vm.chain_context import ChainContext
from eth.vm.forks.cancun import CancunVM
from eth_keys.exceptions import BadSignature
from eth_typing import Address as RawAddress
from eth_utils import ValidationError

from pouw.errors import ChainError

BLOCK_GAS: Final = 60_000_000
TRANSACTION_GAS: Final = 1 << 24  # EIP-7825: what one transaction may use on mainnet
_NOBODY: Final = RawAddress(bytes(20))
_BLOB_TRANSACTION: Final = 3
_PREVIOUS_HASHES: Final = 256


class Refused(ChainError):
    """A transaction that cannot enter a block; the message is a node's usual one."""


@dataclass(frozen=True, slots=True)
class Included:
    """A transaction with its raw bytes, sender, receipt and (for a creation) new address."""

    raw: bytes
    transaction: SignedTransactionAPI
    sender: bytes
    receipt: ReceiptAPI
    gas_used: int
    created: bytes | None


@dataclass(frozen=True, slots=True)
class Block:
    """A closed block."""

    header: BlockHeaderAPI
    included: tuple[Included, ...]


def decode_transaction(raw: bytes, chain_id: int) -> SignedTransactionAPI:
    """The signed transaction in ``raw``; Refused where it is none that this chain takes."""
    try:
        transaction = CancunVM.get_transaction_builder().decode(raw)
        transaction.check_signature_validity()
        _ = transaction.sender
    except (
        rlp.exceptions.RLPException,
        UnrecognizedTransactionType,
        ValidationError,
        BadSignature,
        PyEVMError,
        TypeError,
        ValueError,
        IndexError,
    ) as error:
        raise Refused(f"invalid transaction: {type(error).__name__}") from error
    if transaction.type_id == _BLOB_TRANSACTION:
        raise Refused("transaction type not supported")
    if transaction.chain_id != chain_id:
        raise Refused("invalid chain id for signer")
    if transaction.gas > TRANSACTION_GAS:
        raise Refused(f"transaction gas limit too high (cap: {TRANSACTION_GAS})")
    return transaction


class EmbeddedChain:
    """Closed blocks, and the one being built once a transaction has arrived."""

    def __init__(self, chain_id: int, timestamp: int, balances: dict[bytes, int]) -> None:
        self.chain_id = chain_id
        self.blocks: list[Block] = []
        self._database = AtomicDB()
        self._context = ChainContext(chain_id)
        self._open: _OpenBlock | None = None
        self._reading: tuple[bytes, StateAPI] | None = None
        before = BlockHeader(difficulty=0, block_number=-1, gas_limit=0)
        state = CancunVM.build_state(self._database, before, self._context)
        for account, balance in balances.items():
            state.set_balance(RawAddress(account), balance)
        state.persist()
        genesis = CancunVM.create_genesis_header(
            difficulty=0,
            gas_limit=BLOCK_GAS,
            timestamp=timestamp,
            state_root=state.state_root,
            coinbase=_NOBODY,
            mix_hash=bytes(32),
            nonce=bytes(8),
        )
        self.blocks.append(Block(genesis, ()))

    @property
    def head(self) -> BlockHeaderAPI:
        """The header of the last closed block."""
        return self.blocks[-1].header

    @property
    def building(self) -> Block | None:
        """The block being built as it stands, without its final roots; None where it is empty."""
        block = self._open
        return None if block is None else Block(block.header, tuple(block.included))

    def apply(self, raw: bytes, transaction: SignedTransactionAPI, timestamp: int) -> Included:
        """Execute ``transaction`` in the block being built, which begins at ``timestamp`` if new.

        Refused where it may not enter a block at all; a transaction that fails is included.
        """
        block = self._open or self._begin(timestamp)
        included = block.apply(raw, transaction)
        self._open = block
        return included

    def room_for(self, transaction: SignedTransactionAPI) -> bool:
        """Whether the block being built has the gas left."""
        used = self._open.header.gas_used if self._open else 0
        return bool(used + transaction.gas <= BLOCK_GAS)

    def close(self, timestamp: int) -> Block:
        """Close the block being built, or an empty one at ``timestamp``; it becomes the head."""
        if self._open is None:
            block = Block(self.next_header(timestamp), ())
        else:
            block = self._open.finished(self._database)
            self._open = None
        self.blocks.append(block)
        return block

    def next_header(self, timestamp: int) -> BlockHeaderAPI:
        """The header of an empty next block at ``timestamp``."""
        parent = self.head
        header: BlockHeaderAPI = CancunVM.create_header_from_parent(
            parent,
            timestamp=timestamp,
            gas_limit=BLOCK_GAS,
            difficulty=0,
            coinbase=_NOBODY,
            mix_hash=parent.hash,
        )
        return header

    def _begin(self, timestamp: int) -> _OpenBlock:
        header = self.next_header(timestamp)
        hashes = self._hashes_before(header.block_number)
        return _OpenBlock(
            header, CancunVM.build_state(self._database, header, self._context, hashes)
        )

    def _hashes_before(self, number: int) -> tuple[Any, ...]:
        recent = self.blocks[max(0, number - _PREVIOUS_HASHES) : number]
        return tuple(block.header.hash for block in reversed(recent))

    @contextmanager
    def state_at(self, number: int) -> Iterator[StateAPI]:
        """The state after closed block ``number``; whatever the caller does to it is undone."""
        with self._scratch(self.blocks[number].header) as state:
            yield state

    @contextmanager
    def pending_state(self, timestamp: int) -> Iterator[StateAPI]:
        """The state after everything accepted so far, in a next block at ``timestamp``; undone."""
        if self._open is None:
            with self._scratch(self.next_header(timestamp)) as state:
                yield state
            return
        header = self._open.header.copy(timestamp=max(timestamp, self._open.header.timestamp))
        with _undone(self._open.state, self._execution_context(header)) as state:
            yield state

    @contextmanager
    def _scratch(self, header: BlockHeaderAPI) -> Iterator[StateAPI]:
        """A state at the header's root; kept while the root stays, so that its caches stay warm."""
        kept = self._reading
        if kept is None or kept[0] != header.state_root:
            state = CancunVM.build_state(self._database, header, self._context)
            self._reading = kept = (header.state_root, state)
        with _undone(kept[1], self._execution_context(header)) as state:
            yield state

    def _execution_context(self, header: BlockHeaderAPI) -> Any:
        """The block's context for calls: as it is, but for a base fee of 0."""
        free = header.copy(base_fee_per_gas=0)
        return CancunVM.create_execution_context(
            free, self._hashes_before(header.block_number), self._context
        )


class _OpenBlock:
    def __init__(self, header: BlockHeaderAPI, state: StateAPI) -> None:
        self.header = header
        self.state = state
        self.included: list[Included] = []

    def apply(self, raw: bytes, transaction: SignedTransactionAPI) -> Included:
        snapshot = self.state.snapshot()
        try:
            computation = self.state.apply_transaction(transaction)
        except (ValidationError, PyEVMError) as error:
            self.state.revert(snapshot)
            raise Refused(_refusal(transaction, self.header, self.state, error)) from error
        before = self.header.gas_used
        receipt = CancunVM.make_receipt(self.header, transaction, computation, self.state)
        self.state.lock_changes()
        self.header = self.header.copy(
            bloom=self.header.bloom | receipt.bloom, gas_used=receipt.gas_used
        )
        created = computation.msg.storage_address if computation.msg.is_create else None
        included = Included(
            raw, transaction, transaction.sender, receipt, receipt.gas_used - before, created
        )
        self.included.append(included)
        return included

    def finished(self, database: AtomicDB) -> Block:
        self.state.persist()
        transactions, _ = make_trie_root_and_nodes(
            tuple(item.transaction for item in self.included)
        )
        receipts, _ = make_trie_root_and_nodes(tuple(item.receipt for item in self.included))
        header = self.header.copy(
            state_root=self.state.state_root, transaction_root=transactions, receipt_root=receipts
        )
        return Block(header, tuple(self.included))


@contextmanager
def _undone(state: StateAPI, context: Any) -> Iterator[StateAPI]:
    own = state.execution_context
    snapshot = state.snapshot()
    state.execution_context = context
    try:
        yield state
    finally:
        state.execution_context = own
        state.revert(snapshot)


def _refusal(
    transaction: SignedTransactionAPI, header: BlockHeaderAPI, state: StateAPI, error: Exception
) -> str:
    """A refusal in the words of other nodes, which clients look for."""
    if transaction.nonce < state.get_nonce(transaction.sender):
        return "nonce too low"
    if transaction.max_fee_per_gas < (header.base_fee_per_gas or 0):
        return "max fee per gas less than block base fee"
    if transaction.gas < transaction.intrinsic_gas:
        return "intrinsic gas too low"
    cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
    if state.get_balance(transaction.sender) < cost:
        return "insufficient funds for gas * price + value"
    return f"invalid transaction: {error}"
