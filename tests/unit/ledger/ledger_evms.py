"""The real contract on two EVMs: revm (pyrevm, fast) and py-evm (that of ``pouw devnet``).

Both are driven without a chain around them: one call a block, at the time that the call says.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import astuple, dataclass
from typing import Any

import pyrevm
from eth.db.atomic import AtomicDB
from eth.rlp.headers import BlockHeader
from eth.vm.chain_context import ChainContext
from eth.vm.forks.cancun import CancunVM
from eth.vm.spoof import SpoofTransaction
from eth_abi import encode
from eth_utils import to_canonical_address, to_checksum_address
from ledger_stage import CHAIN_ID, START, STRANGER

from pouw.chain.abi import artifact, reverted
from pouw.chain.logs import decode_logs
from pouw.errors import ChainUnavailable
from pouw.events import Event
from pouw.types import Address, Parameters

GAS = 16_000_000
RICH = 10**30
REVERTED = re.compile(r"^Revert \{ gas_used: \d+, output: 0x([0-9a-f]*) \}$")


@dataclass(frozen=True)
class Done:
    """What a message did: its output, or its revert bytes; logs as (account, topics, data)."""

    failed: bool
    output: bytes
    logs: tuple[tuple[str, list[bytes], bytes], ...] = ()


class Evm(ABC):
    """One contract on one state; time is whatever the call says."""

    address: Address

    def __init__(self) -> None:
        self.number = 0

    @abstractmethod
    def apply(self, sender: Address, time: int, data: bytes, value: int) -> Done:
        """One transaction to the contract."""

    @abstractmethod
    def balance(self) -> int:
        """The contract's ether."""

    @staticmethod
    def creation(parameters: Parameters) -> bytes:
        return artifact().bytecode + encode(artifact().constructor, [astuple(parameters)])

    def call(
        self, sender: Address, time: int, name: str, arguments: tuple[Any, ...], value: int
    ) -> list[Event]:
        """The call's events; Reverted as the package's client reads it."""
        self.number += 1
        done = self.apply(sender, time, artifact().functions[name].encode(*arguments), value)
        if done.failed:
            raise reverted(done.output)
        logs = [
            {
                "address": account,
                "topics": ["0x" + topic.hex() for topic in topics],
                "data": "0x" + body.hex(),
                "blockNumber": hex(self.number),
                "blockHash": "0x" + self.number.to_bytes(32, "big").hex(),
                "logIndex": hex(place),
                "transactionHash": "0x" + self.number.to_bytes(32, "little").hex(),
            }
            for place, (account, topics, body) in enumerate(done.logs)
        ]
        return decode_logs(logs, self.address, ChainUnavailable("malformed"))

    def view(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """What a view returns."""
        function = artifact().functions[name]
        done = self.apply(STRANGER.address, START, function.encode(*arguments), 0)
        assert not done.failed, reverted(done.output)
        return function.decode(done.output)


class Revm(Evm):
    """Never commits its journal: pyrevm 0.3 counts call depth wrongly after that."""

    def __init__(self, parameters: Parameters) -> None:
        super().__init__()
        settings = pyrevm.CfgEnv(chain_id=CHAIN_ID)
        self._evm = pyrevm.EVM(env=pyrevm.Env(cfg=settings), spec_id="CANCUN", gas_limit=GAS)
        self._rich: set[Address] = set()
        self._begin(STRANGER.address, START)
        code = self.creation(parameters)
        self.address = Address(
            to_checksum_address(self._evm.deploy(STRANGER.address, code, gas=GAS))
        )

    def apply(self, sender: Address, time: int, data: bytes, value: int) -> Done:
        self._begin(sender, time)
        try:
            output = self._evm.message_call(sender, self.address, data, value=value, gas=GAS)
        except RuntimeError as error:
            found = REVERTED.match(str(error))
            if found is None:
                raise
            return Done(True, bytes.fromhex(found[1]))
        logs = tuple((log.address, *log.data) for log in self._evm.result.logs)
        return Done(False, bytes(output), logs)

    def balance(self) -> int:
        return int(self._evm.get_balance(self.address))

    def _begin(self, sender: Address, time: int) -> None:
        self._evm.set_block_env(
            pyrevm.BlockEnv(number=self.number, timestamp=time, basefee=0, gas_limit=GAS)
        )
        if sender not in self._rich:
            self._evm.set_balance(sender, RICH)
            self._rich.add(sender)


class PyEvm(Evm):
    """The state machine that the embedded chain uses."""

    def __init__(self, parameters: Parameters) -> None:
        super().__init__()
        self._context = ChainContext(CHAIN_ID)
        before = BlockHeader(difficulty=0, block_number=0, gas_limit=GAS, timestamp=START)
        self._state = CancunVM.build_state(AtomicDB(), before, self._context)
        self._genesis = CancunVM.create_genesis_header(
            difficulty=0,
            gas_limit=GAS,
            timestamp=START,
            state_root=self._state.state_root,
            coinbase=bytes(20),
            mix_hash=bytes(32),
            nonce=bytes(8),
        )
        done = self._transact(STRANGER.address, START, b"", self.creation(parameters), 0)
        assert not done.is_error, done.error
        self.address = Address(to_checksum_address(done.msg.storage_address))

    def apply(self, sender: Address, time: int, data: bytes, value: int) -> Done:
        done = self._transact(sender, time, to_canonical_address(self.address), data, value)
        logs = () if done.is_error else done.get_log_entries()
        return Done(
            done.is_error,
            done.output,
            tuple(
                (to_checksum_address(account), [word.to_bytes(32, "big") for word in topics], body)
                for account, topics, body in logs
            ),
        )

    def balance(self) -> int:
        return int(self._state.get_balance(to_canonical_address(self.address)))

    def _transact(self, sender: Address, time: int, to: bytes, data: bytes, value: int) -> Any:
        header = self._genesis.copy(block_number=1, timestamp=time, base_fee_per_gas=0)
        state = self._state
        state.execution_context = CancunVM.create_execution_context(header, (), self._context)
        account = to_canonical_address(sender)
        state.set_balance(account, RICH)
        unsigned = CancunVM.create_unsigned_transaction(
            nonce=state.get_nonce(account), gas_price=0, gas=GAS, to=to, value=value, data=data
        )
        done = state.apply_transaction(SpoofTransaction(unsigned, from_=account))
        state.lock_changes()
        return done
