"""What the reward-ranked pool does to tasks: who is served, after how many rounds, who never.

Tasks arrive at random (Poisson, ``load`` a round), with rewards spread by a log-normal; every round
takes the head of the pool. At a load below one everybody is served in the end; above one the
cheapest tasks wait for ever, and the reward is the price of a place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pouw.ledger.pool import Pool
from pouw.ledger.simulate.double_spend import interval
from pouw.types import TaskId

_GROUPS = 10
_REWARD_SIGMA = 1.0
_REWARD_UNIT = 10**6


@dataclass(frozen=True, slots=True)
class Service:
    """Tasks of one tenth of all rewards, the poorest first.

    ``served``: share selected within ``patience`` rounds of their publication; ``wait_rounds``:
    median wait of those served, None where none was. Both with a 95 % interval over repetitions.
    """

    tenth: int
    served: float
    served_low: float
    served_high: float
    wait_rounds: float | None


def selection(
    load: float, rounds: int, patience: int, repetitions: int, random: np.random.Generator
) -> tuple[Service, ...]:
    """Service by tenth of the reward, over ``repetitions`` arenas of ``rounds`` rounds each.

    Counted are tasks published late enough for the pool to have settled and early enough to have
    had their ``patience``: those of the middle third of an arena's life at least.
    """
    shares = np.zeros((repetitions, _GROUPS))
    waits: list[list[int]] = [[] for _ in range(_GROUPS)]
    for repetition in range(repetitions):
        rewards, published, selected = _play(load, rounds, random)
        counted = (published >= rounds // 3) & (published < rounds - patience)
        group = _tenths(rewards)
        wait = np.where(selected < 0, np.inf, selected - published)
        for tenth in range(_GROUPS):
            own = wait[counted & (group == tenth)]
            shares[repetition, tenth] = (own <= patience).mean() if len(own) else np.nan
            waits[tenth] += [int(each) for each in own[own <= patience]]
    return tuple(
        Service(
            tenth=tenth + 1,
            served=float(np.nanmean(shares[:, tenth])),
            served_low=interval(shares[~np.isnan(shares[:, tenth]), tenth].tolist())[0],
            served_high=interval(shares[~np.isnan(shares[:, tenth]), tenth].tolist())[1],
            wait_rounds=float(np.median(waits[tenth])) if waits[tenth] else None,
        )
        for tenth in range(_GROUPS)
    )


Ints = np.typing.NDArray[np.int64]


def _play(load: float, rounds: int, random: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Reward, round of publication and round of selection (-1: never) of every task."""
    arrivals = random.poisson(load, rounds)
    published = np.repeat(np.arange(rounds), arrivals)
    rewards = np.rint(random.lognormal(0.0, _REWARD_SIGMA, len(published)) * _REWARD_UNIT).astype(
        np.int64
    )
    selected = np.full(len(published), -1)
    pool, following = Pool(), 0
    for number, count in enumerate(arrivals):
        for task in range(following, following + int(count)):
            pool.insert(TaskId(task + 1), int(rewards[task]))
        following += int(count)
        if len(pool):
            head = pool.head
            pool.remove(head)
            selected[head - 1] = number
    return rewards, published, selected


def _tenths(rewards: Ints) -> Ints:
    """The tenth of the reward distribution that each task is in, 0 the poorest."""
    order = np.argsort(np.argsort(rewards, kind="stable"), kind="stable")
    return order * _GROUPS // max(1, len(rewards))
