"""Whether an account can pay for what its role will have to pay."""

from __future__ import annotations

import math
import time
from decimal import Decimal
from typing import Final

from eth_abi import encode

from pouw.chain.arena import ArenaClient
from pouw.chain.tx import call
from pouw.errors import ConfigError
from pouw.roles.base import Setup
from pouw.types import ZERO_ADDRESS

CALL_GAS: Final = 600_000  # of one that may settle the pool and close a round
LOOK_SECONDS: Final = 30.0
REMIND_SECONDS: Final = 300.0
_BALANCE_OF = bytes.fromhex("70a08231")  # balanceOf(address)


def check_reward(arena: ArenaClient, reward_wei: int) -> None:
    """ConfigError where the arena takes no task for so little."""
    least = arena.parameters().min_reward
    if reward_wei < least:
        raise ConfigError(
            f"{amount(arena, reward_wei)} is less than this arena takes a task for",
            hint=f"offer at least {amount(arena, least)}",
        )


def check_means(arena: ArenaClient, money: int, gas: int) -> None:
    """ConfigError where the arena's account has no ``money`` (smallest unit of its asset) and gas.

    ``gas`` at the price that would be offered now: what it will cost then is not known.
    """
    address, asset = arena.sender.address, arena.parameters().asset
    ether = arena.endpoint.quantity("eth_getBalance", address, "latest")
    gas_wei = arena.sender.gas_wei(gas)
    if asset == ZERO_ADDRESS:
        if ether < money + gas_wei:
            raise ConfigError(
                f"{address} needs {amount(arena, money)} plus gas (up to {_ether(gas_wei)} "
                f"ether), has {_ether(ether)} ether",
                hint="send it some ether",
            )
        return
    message = {"to": asset, "data": "0x" + (_BALANCE_OF + encode(["address"], [address])).hex()}
    owned = int.from_bytes(call(arena.endpoint, message)[:32], "big")
    if owned < money or ether < gas_wei:
        raise ConfigError(
            f"{address} needs {amount(arena, money)} and {_ether(gas_wei)} ether for gas, "
            f"has {amount(arena, owned)} and {_ether(ether)} ether",
            hint="send it what is missing",
        )


class GasWatch:
    """Warns while an account cannot pay for the calls that a bond depends on."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._looked = self._warned = -math.inf
        self._short_wei: int | None = None

    def look(self, calls: int) -> None:
        """Warn where so many calls cost more than there is; again when that changes, or later."""
        now = time.monotonic()
        if calls == 0 or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        arena = self._setup.arena
        need_wei = arena.sender.gas_wei(calls * CALL_GAS)
        ether = arena.endpoint.quantity("eth_getBalance", arena.sender.address, "latest")
        if ether >= need_wei:
            self._short_wei = None
        elif ether != self._short_wei or now - self._warned >= REMIND_SECONDS:
            self._short_wei, self._warned = ether, now
            self._setup.warn(
                f"{arena.sender.address} has {_ether(ether)} ether, the {calls} call(s) to come "
                f"may need {_ether(need_wei)} for gas: a key that cannot be paid costs the bond",
                hint="send it some ether now",
            )


def amount(arena: ArenaClient, money: int) -> str:
    """``money``, in the smallest unit of the arena's asset, for messages."""
    asset = arena.parameters().asset
    return f"{_ether(money)} ether" if asset == ZERO_ADDRESS else f"{money} of the token {asset}"


def _ether(wei: int) -> str:
    return f"{Decimal(wei).scaleb(-18).normalize():f}"
