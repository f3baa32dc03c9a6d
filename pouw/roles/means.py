"""Whether an account can pay for what its role will have to pay."""

from __future__ import annotations

from decimal import Decimal

from eth_abi import encode

from pouw.chain.arena import ArenaClient
from pouw.chain.tx import call
from pouw.errors import ConfigError
from pouw.types import ZERO_ADDRESS

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
                f"{address} needs {amount(arena, money)} plus gas, has {_ether(ether)} ether",
                hint="send it some ether",
            )
        return
    message = {"to": asset, "data": "0x" + (_BALANCE_OF + encode(["address"], [address])).hex()}
    owned = int.from_bytes(call(arena.endpoint, message)[:32], "big")
    if owned < money or ether < gas_wei:
        raise ConfigError(
            f"{address} needs {amount(arena, money)} and ether for gas, "
            f"has {amount(arena, owned)} and {_ether(ether)} ether",
            hint="send it what is missing",
        )


def amount(arena: ArenaClient, money: int) -> str:
    """``money``, in the smallest unit of the arena's asset, for messages."""
    asset = arena.parameters().asset
    return f"{_ether(money)} ether" if asset == ZERO_ADDRESS else f"{money} of the token {asset}"


def _ether(wei: int) -> str:
    return f"{Decimal(wei).scaleb(-18).normalize():f}"
