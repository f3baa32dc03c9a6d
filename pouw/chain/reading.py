"""Reads of one arena as the records of `pouw.types`; no account is needed."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any, Final

from eth_utils import to_checksum_address

from pouw.chain.abi import artifact
from pouw.chain.ranges import read_events
from pouw.chain.rpc import BlockTag, Endpoint, EndpointRefused, as_address, tag
from pouw.chain.tx import call
from pouw.errors import ChainUnavailable, ConfigError, Reverted
from pouw.events import Event
from pouw.types import (
    Address,
    ArenaState,
    Entry,
    EntryState,
    Parameters,
    Round,
    RoundNumber,
    Task,
    TaskId,
    Verdict,
)

# Further ahead than this the own clock is wrong: a pending block is of this moment.
TRUSTED_SECONDS: Final = 60
# TIMESTAMP, PUSH 0, MSTORE, PUSH 32, PUSH 0, RETURN: a pending block itself is hundreds of hashes.
_TELL_TIME: Final = "0x4260005260206000f3"


@dataclass(frozen=True, slots=True)
class Clock:
    """The time as three clocks tell it, in seconds since the epoch.

    ``own``: this machine's; ``latest`` and ``pending``: those of two blocks. The latest does not
    tell the time where the chain is idle, the pending one is a little ahead of it elsewhere.
    """

    own: int
    latest: int
    pending: int

    @property
    def contract(self) -> int:
        """What the contract sees at least in a call that is sent now."""
        return max(self.latest, self.pending)

    @property
    def ahead(self) -> int:
        """Seconds that this machine is ahead of the chain; below 0: behind."""
        return min(self.own - self.latest, max(0, self.own - self.contract))

    @property
    def now(self) -> int:
        """The time to wait by: the own clock's, unless that cannot be right."""
        return self.contract if self.ahead > TRUSTED_SECONDS else max(self.own, self.latest)


class ArenaReader:
    """Reads of one deployment; ``block`` is a number, 'latest' or 'pending'."""

    def __init__(self, endpoint: Endpoint, address: Address) -> None:
        self.endpoint = endpoint
        self.address = address

    @classmethod
    def open(cls, rpc_url: str, address: str) -> ArenaReader:
        """The arena at ``address``; ConfigError where there is no contract."""
        endpoint = Endpoint.connect(rpc_url)
        return cls(endpoint, checked_arena(endpoint, address))

    def read(self, name: str, *arguments: Any, block: BlockTag = "latest") -> tuple[Any, ...]:
        """The values that the view ``name`` returns."""
        function = artifact().functions[name]
        message = {"to": self.address, "data": "0x" + function.encode(*arguments).hex()}
        output = call(self.endpoint, message, block)
        try:
            return function.decode(output)
        except ValueError as error:
            raise self.endpoint.malformed(f"eth_call of {name}") from error

    @functools.cached_property
    def chain_id(self) -> int:
        """The chain's id."""
        return self.endpoint.chain_id()

    def first_block_hash(self) -> str | None:
        """The hash of block 0, which tells chains of one id apart; None where it is not kept."""
        try:
            block = self.endpoint.request("eth_getBlockByNumber", tag(0), False)
        except EndpointRefused:
            return None
        return str(block["hash"]) if hasattr(block, "get") and block.get("hash") else None

    def parameters(self) -> Parameters:
        """The deployment's parameters; they never change and are read once."""
        return self._parameters

    @functools.cached_property
    def _parameters(self) -> Parameters:
        (values,) = self.read("parameters")
        oracles = tuple(_address(oracle) for oracle in values[12])
        fields = [_address(values[0]), *values[1:12], oracles, values[13], _address(values[14])]
        return Parameters(*fields)

    def state(self, block: BlockTag = "latest") -> ArenaState:
        """What is selected and what is live."""
        ((tasks, rounds, selected, selected_at, live),) = self.read("arena", block=block)
        return ArenaState(tasks, rounds, TaskId(selected), selected_at, live)

    def task(self, task_id: TaskId, block: BlockTag = "latest") -> Task:
        """A task; all zero where it was cancelled or never published."""
        (values,) = self.read("tasks", task_id, block=block)
        return Task(task_id, _address(values[0]), *values[1:])

    def round(self, number: RoundNumber, block: BlockTag = "latest") -> Round:
        """A round; all zero where it has not begun."""
        (values,) = self.read("rounds", number, block=block)
        try:
            verdict = Verdict(values[7])
        except ValueError as error:
            raise self.endpoint.malformed("eth_call of rounds") from error
        people = [_address(values[10]), _address(values[11])]
        fields = [*values[:7], verdict, *values[8:10], *people, *values[12:]]
        return Round(number, *fields)

    def entry(self, number: RoundNumber, miner: Address, block: BlockTag = "latest") -> Entry:
        """How far ``miner`` got in a round."""
        ((committed_at, claim, state, digest),) = self.read("entries", number, miner, block=block)
        try:
            return Entry(committed_at, claim, EntryState(state), digest)
        except ValueError as error:
            raise self.endpoint.malformed("eth_call of entries") from error

    def credit(self, address: Address, block: BlockTag = "latest") -> int:
        """What ``address`` can withdraw; of ``ZERO_ADDRESS``: what was burned."""
        return int(self.read("credits", address, block=block)[0])

    def pool(
        self, after: TaskId | None = None, limit: int = 100, block: BlockTag = "latest"
    ) -> list[TaskId]:
        """At most ``limit`` ids in the pool's order, after one task (None: from the head)."""
        (ids,) = self.read("pool", after or 0, limit, block=block)
        return [TaskId(task_id) for task_id in ids]

    def hint_for(self, reward: int, block: BlockTag = "latest") -> TaskId:
        """The hint with which publishing this reward is cheap now."""
        return TaskId(self.read("hintFor", reward, block=block)[0])

    def pool_history(self, block: BlockTag = "latest") -> bytes:
        """The rolling hash over every change of the pool."""
        return bytes(self.read("poolHistory", block=block)[0])

    def last_header(self, block: BlockTag = "latest") -> bytes:
        """The header of the last closed round; before the first, the domain separator."""
        return bytes(self.read("lastHeader", block=block)[0])

    def votes(
        self, number: RoundNumber, verdict: Verdict, winner: Address, block: BlockTag = "latest"
    ) -> int:
        """Bitmap of the oracles that voted for one outcome."""
        return int(self.read("votes", number, int(verdict), winner, block=block)[0])

    def commitment_of(
        self, number: RoundNumber, miner: Address, manifest_digest: bytes, salt: bytes
    ) -> bytes:
        """The commitment as the contract computes it (`pouw.hashing.commitment` mirrors it)."""
        return bytes(self.read("commitmentOf", number, miner, manifest_digest, salt)[0])

    def confirmed_block(self, confirmations: int) -> int:
        """The last block that ``confirmations`` blocks stand on, itself counted; at least 0."""
        return max(0, self.endpoint.block_number() - max(1, confirmations) + 1)

    def deployment_block(self, after: int = 0) -> int:
        """The first block from ``after`` on at which the contract is there, by bisection.

        ChainUnavailable where the endpoint has forgotten states as old as that.
        """
        low, high = after, self.endpoint.block_number()
        while low < high:
            middle = (low + high) // 2
            try:
                there = bool(self.endpoint.data("eth_getCode", self.address, tag(middle)))
            except EndpointRefused as error:
                raise ChainUnavailable(
                    f"the chain at {self.endpoint.url} does not keep the state of block {middle}, "
                    "so the arena's deployment cannot be found there",
                    hint="set from_block (--from-block) to the block that `pouw deploy` printed, "
                    "or ask an archive node",
                ) from error
            low, high = (low, middle) if there else (middle + 1, high)
        return low

    def events(self, from_block: int, to_block: int) -> list[Event]:
        """The arena's events of a range of blocks, in order."""
        return read_events(self.endpoint, self.address, from_block, to_block)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An arena as of one block: what is selected, and the last round with its task, if any.

    ``clock`` is that of the moment, not the block's time.
    """

    block: int
    clock: Clock
    state: ArenaState
    selected: Task | None
    round: Round | None
    task: Task | None


def snapshot(reader: ArenaReader, block: int | None = None) -> Snapshot:
    """The arena at one block (default: the latest), every part read at that same block."""
    number = reader.endpoint.block_number() if block is None else block
    state = reader.state(number)
    selected = reader.task(state.selected, number) if state.selected else None
    live = reader.round(RoundNumber(state.rounds), number) if state.rounds else None
    task = reader.task(live.task_id, number) if live is not None else None
    return Snapshot(number, read_clock(reader.endpoint), state, selected, live, task)


def read_clock(endpoint: Endpoint) -> Clock:
    """The clocks of this moment; an endpoint that knows no pending block tells the latest's."""
    latest = endpoint.timestamp("latest")
    try:
        pending = int.from_bytes(call(endpoint, {"data": _TELL_TIME}, "pending")[:32], "big")
    except (EndpointRefused, Reverted):
        pending = latest
    return Clock(int(time.time()), latest, pending)


def checked_arena(endpoint: Endpoint, address: str) -> Address:
    """``address`` with its checksum; ConfigError where the chain has no contract there."""
    arena = as_address(address)
    if not endpoint.data("eth_getCode", arena, tag("latest")):
        raise ConfigError(
            f"there is no contract at {arena} on chain {endpoint.chain_id()}",
            hint="check --arena and --rpc: is this the chain it was deployed on?",
        )
    return arena


def _address(text: str) -> Address:
    return Address(to_checksum_address(text))
