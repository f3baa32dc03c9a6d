"""Publications into pools of given sizes, and what takes tasks out of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks.gas.anvil import Contract
from benchmarks.gas.stage import REWARD_WEI, Stage, due_wei

# anvil copies its state with every block: few large ones.
BATCH: Final = 2_000


def play_pools(
    stage: Stage, crowd: Contract, sizes: list[int], advance: Callable[[int], None]
) -> None:
    """Publications with a fresh hint at the end, in the middle and at the head of pools of each
    size, and one drop with one selection; ``advance`` is told of every task that was added.
    """
    for _ in range(2):  # One selected, one waiting; a drop, so that burned money has its slot.
        stage.publish("first publication", 2 * REWARD_WEI, 0)
    stage.drop("first drop")
    pooled, last = 0, 0
    for size in sizes:
        while pooled < size:
            count = min(BATCH, size - pooled)
            # Each batch is cheaper than the one before, so its place is below the last task.
            reward_wei = REWARD_WEI - pooled // BATCH * 10
            value = count * due_wei(reward_wei)
            words = (stage.arena.address, count, reward_wei, 0, last)
            crowd.send(stage.publisher, "publish", *words, value=value)
            last = stage.arena.call("arena")[0]
            pooled += count
            advance(count)
        for place, reward_wei in (
            ("end", 1_000),
            ("middle", REWARD_WEI - 5),
            ("head", 2 * REWARD_WEI),
        ):
            hint = stage.arena.call("hintFor", reward_wei)
            stage.publish(f"publish into {size:,}, {place}", reward_wei, hint)
        stage.drop(f"drop and select of {size:,}")
        pooled = size + 2


def play_walks(stage: Stage, crowd: Contract, sizes: list[int]) -> None:
    """What a publication costs that walks past a whole pool of each size, and one drop."""
    for _ in range(2):
        stage.publish("first publication", 10 * REWARD_WEI, 0)
    stage.drop("first drop")
    pooled = 0
    for size in sizes:
        while pooled < size:
            count = min(BATCH, size - pooled)
            # Rising rewards enter at the head, where nothing has to be walked past.
            reward_wei = REWARD_WEI + pooled
            value = sum(due_wei(reward_wei + i) for i in range(count))
            words = (stage.arena.address, count, reward_wei, 1, 0)
            crowd.send(stage.publisher, "publish", *words, value=value)
            pooled += count
        stage.publish(f"publish into {size:,}, end", 1_000, 0)
        stage.publish(f"publish into {size:,}, head", 10 * REWARD_WEI, 0)
        stage.drop(f"drop and select of {size:,}")
        pooled = size + 1
