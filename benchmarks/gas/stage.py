"""One arena on the stage: who acts in it, and what each named call used."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.gas.anvil import Chain, Compiled, Receipt
from pouw import hashing
from pouw.types import ZERO_ADDRESS

REWARD_WEI: Final = 10**18
MINER_BOND_WEI: Final = 10**15
PHASE1_SECONDS: Final = 1_000_000
WINDOW_SECONDS: Final = 100_000
PHASE2_SECONDS: Final = 5 * WINDOW_SECONDS
TEST_KEY: Final = hashing.keccak(b"test key")
SPEC_DIGEST: Final = hashing.sha256(b"spec")


def due_wei(reward_wei: int) -> int:
    """A reward and its publisher's bond."""
    return reward_wei + reward_wei // 10


class Stage:
    """An arena of ETH with three oracles, two of whom decide, and what each named call used."""

    def __init__(self, chain: Chain, compiled: Compiled) -> None:
        self.chain = chain
        self.publisher, self.anybody = chain.accounts[5], chain.accounts[6]
        self.oracles = list(chain.accounts[1:4])
        windows = (PHASE1_SECONDS, *[WINDOW_SECONDS] * 5)
        bonds = (1_000, 1_000, 500, MINER_BOND_WEI, MINER_BOND_WEI)
        committee = (self.oracles, 2, chain.accounts[4])
        self.arena = chain.deploy(compiled, (ZERO_ADDRESS, *windows, *bonds, *committee))
        self.gas: dict[str, int] = {}

    def send(self, name: str, sender: str, call: str, *arguments: Any, value: int = 0) -> Receipt:
        """Execute a call; of one name the dearest counts."""
        receipt = self.arena.send(sender, call, *arguments, value=value)
        self.gas[name] = max(self.gas.get(name, 0), receipt.gas)
        return receipt

    def publish(self, name: str, reward_wei: int, hint: int) -> Receipt:
        """Publish a task whose keys follow from ``TEST_KEY``."""
        words = (SPEC_DIGEST, hashing.key_hash_of(TEST_KEY), 500_000, False, reward_wei, hint)
        return self.send(name, self.publisher, "publish", *words, value=due_wei(reward_wei))

    def drop(self, name: str) -> None:
        """Let the selected task's key be late: one drop, one selection."""
        selected_at = self.arena.call("arena")[3]
        self.chain.at(selected_at + PHASE2_SECONDS + WINDOW_SECONDS)
        self.send(name, self.anybody, "sync")
