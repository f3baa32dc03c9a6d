"""The model and the real contract (py-evm), called side by side and compared call by call."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from typing import Any

from eth.db.atomic import AtomicDB
from eth.rlp.headers import BlockHeader
from eth.vm.chain_context import ChainContext
from eth.vm.forks.cancun import CancunVM
from eth.vm.spoof import SpoofTransaction
from eth_abi import encode
from eth_utils import to_canonical_address, to_checksum_address
from ledger_stage import CHAIN_ID, PARAMETERS, START, STRANGER

from pouw.chain.abi import artifact, reverted
from pouw.chain.logs import decode_logs
from pouw.errors import ChainUnavailable, Reverted
from pouw.events import Credited, Event
from pouw.ledger.model import Arena, Call
from pouw.types import Address, Parameters

GAS = 16_000_000


class Evm:
    """One contract on one state; time is whatever the call says."""

    def __init__(self, parameters: Parameters) -> None:
        self._context = ChainContext(CHAIN_ID)
        before = BlockHeader(difficulty=0, block_number=0, gas_limit=30_000_000, timestamp=START)
        self._state = CancunVM.build_state(AtomicDB(), before, self._context)
        self._genesis = CancunVM.create_genesis_header(
            difficulty=0,
            gas_limit=30_000_000,
            timestamp=START,
            state_root=self._state.state_root,
            coinbase=bytes(20),
            mix_hash=bytes(32),
            nonce=bytes(8),
        )
        self._number = 0
        fields = encode(artifact().constructor, [astuple(parameters)])
        done = self._apply(STRANGER.address, START, b"", artifact().bytecode + fields, 0)
        assert not done.is_error, done.error
        self.address = Address(to_checksum_address(done.msg.storage_address))

    def call(self, sender: Address, time: int, name: str, arguments: tuple[Any, ...], value: int):
        """The call's events and output; Reverted as the package's client reads it."""
        data = artifact().functions[name].encode(*arguments)
        to = to_canonical_address(self.address)
        done = self._apply(sender, time, to, data, value)
        if done.is_error:
            raise reverted(done.output)
        logs = [
            {
                "address": to_checksum_address(account),
                "topics": ["0x" + topic.to_bytes(32, "big").hex() for topic in topics],
                "data": "0x" + body.hex(),
                "blockNumber": hex(self._number),
                "blockHash": "0x" + "00" * 32,
                "logIndex": hex(place),
                "transactionHash": "0x" + "00" * 32,
            }
            for place, (account, topics, body) in enumerate(done.get_log_entries())
        ]
        return decode_logs(logs, self.address, ChainUnavailable("malformed")), done.output

    def view(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        _, output = self.call(STRANGER.address, START, name, arguments, 0)
        return artifact().functions[name].decode(output)

    def _apply(self, sender: Address, time: int, to: bytes, data: bytes, value: int) -> Any:
        self._number += 1
        header = self._genesis.copy(block_number=self._number, timestamp=time, base_fee_per_gas=0)
        state = self._state
        state.execution_context = CancunVM.create_execution_context(header, (), self._context)
        account = to_canonical_address(sender)
        state.set_balance(account, 10**30)
        unsigned = CancunVM.create_unsigned_transaction(
            nonce=state.get_nonce(account), gas_price=0, gas=GAS, to=to, value=value, data=data
        )
        done = state.apply_transaction(SpoofTransaction(unsigned, from_=account))
        state.lock_changes()
        return done


class Twin(Arena):
    """The model, which plays each call on the contract, too, and compares."""

    def __init__(self, parameters: Parameters = PARAMETERS) -> None:
        self.evm = Evm(parameters)
        self.compared = 0
        super().__init__(parameters, CHAIN_ID, self.evm.address)

    def compare(self, name: str, method: Any, call: Call, arguments: tuple[Any, ...]) -> Any:
        """Both refuse with the same error and arguments, or both log the same events."""
        held, before = self.books.balance, len(self.books.events)
        refusal: Reverted | None = None
        result = None
        try:
            result = method(call, *arguments)
        except Reverted as error:
            refusal = error
        value = call.payment
        if value is None:
            value = max(0, self.books.balance - held)
            if refusal is not None and name in ("publish", "topUp", "reveal", "challenge"):
                value = _meant(self, name, arguments)
        if name in ("publish", "topUp"):
            arguments = (*arguments, 0)
        refused: Reverted | None = None
        logs: list[Event] = []
        try:
            logs, _ = self.evm.call(call.sender, call.time, name, arguments, value)
        except Reverted as error:
            refused = error
        assert str(refused) == str(refusal), f"{name}{arguments}: contract against model"
        if refusal is not None:
            raise refusal
        assert _told(logs) == _told(self.books.events[before:])
        self.compared += 1
        return result

    def agree(self) -> None:
        """The contract's whole state is the model's."""
        assert self.evm.view("arena") == (astuple(self.state),)
        assert self.evm.view("poolHistory") == (self.pool_history,)
        assert self.evm.view("lastHeader") == (self.last_header,)
        assert self.evm.view("pool", 0, 1_000) == (tuple(self.pool),)
        for task_id in self.tasks:
            shown = astuple(self.task(task_id))[1:]
            assert _plain(self.evm.view("tasks", task_id)[0]) == _plain(shown)
        for number, this in self.rounds.items():
            assert _plain(self.evm.view("rounds", number)[0]) == _plain(astuple(this)[1:])
            for miner, entry in self.entries[number].items():
                assert self.evm.view("entries", number, miner)[0] == astuple(entry)
        for account in self.books.credits:
            assert self.evm.view("credits", account) == (self.books.credits[account],)


CALLS = {
    "publish": "publish",
    "top_up": "topUp",
    "cancel": "cancel",
    "release_data_key": "releaseDataKey",
    "commit": "commit",
    "open_test": "openTest",
    "reveal": "reveal",
    "report": "report",
    "challenge": "challenge",
    "rule": "rule",
    "finalize": "finalize",
    "sync": "sync",
    "reclaim": "reclaim",
    "withdraw": "withdraw",
}


def _mirrored(method_name: str, name: str) -> Any:
    def call_both(self: Twin, call: Call, *arguments: Any) -> Any:
        method = getattr(super(Twin, self), method_name)
        return self.compare(name, method, call, arguments)

    return call_both


for _method_name, _name in CALLS.items():
    setattr(Twin, _method_name, _mirrored(_method_name, _name))


def _meant(arena: Arena, name: str, arguments: tuple[Any, ...]) -> int:
    """What a refused caller would have had to pay."""
    p = arena.parameters
    if name == "publish":
        return arguments[4] + p.bond_of(arguments[4])
    if name == "topUp":
        task = arena.tasks.get(arguments[0])
        before = task.reward if task else 0
        return arguments[1] + p.bond_of(before + arguments[1]) - p.bond_of(before)
    return p.miner_bond if name == "reveal" else p.challenge_bond


def _told(logs: list[Event]) -> tuple[list[Any], Counter[Address]]:
    """Events but for where they stand; credits summed by account, their order is free."""
    credited: Counter[Address] = Counter()
    others = []
    for event in logs:
        if isinstance(event, Credited):
            credited[event.account] += event.amount
        else:
            others.append((type(event), astuple(event)[4:]))
    return others, credited


def _plain(values: tuple[Any, ...]) -> list[Any]:
    """Addresses in one spelling."""
    return [each.lower() if isinstance(each, str) else each for each in values]
