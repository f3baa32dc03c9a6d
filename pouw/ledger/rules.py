"""The rules of one round that money and audit depend on, as plain functions.

``pouw.ledger.model`` plays by them, ``pouw.ledger.replay`` checks past logs against them; the
contract is written independently of both. Burned means credited to ``ZERO_ADDRESS``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pouw.errors import Reverted
from pouw.types import ZERO_ADDRESS, Address, Deadlines, Parameters, Verdict

MAX_ORACLES = 16
MAX_WINDOW_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a round ended, as far as money is concerned.

    ``voters``: the oracles that voted for the outcome; ``changed``: the ruling differs from what
    the committee had decided (its silence included).
    """

    opened: bool
    verdict: Verdict
    winner: Address
    voters: tuple[Address, ...]
    challenger: Address | None
    ruled: bool
    changed: bool


def decided(
    deadlines: Deadlines, time: int, *, opened: bool, challenged: bool, ruled: bool
) -> bool:
    """Whether nothing can change the outcome any more, so that the round can be closed."""
    return (
        (not opened and time >= deadlines.t2)
        or ruled
        or (not challenged and time >= deadlines.t5)
        or time >= deadlines.t6
    )


def payouts(
    parameters: Parameters, publisher: Address, reward: int, outcome: Outcome
) -> dict[Address, int]:
    """What closing a round credits to each account; accounts that get nothing are left out.

    The sum is always reward + publisher's bond + challenge bond (where one was left): of the
    fee's equal division no dust remains, it goes to the receiver of the reward.
    """
    credited: Counter[Address] = Counter()
    fee = parameters.fee_of(reward)
    if outcome.verdict is Verdict.NONE:
        credited[ZERO_ADDRESS] += fee
    elif outcome.changed:
        assert outcome.challenger is not None
        credited[outcome.challenger] += fee
    else:
        share = fee // len(outcome.voters)
        fee = share * len(outcome.voters)
        credited.update(dict.fromkeys(outcome.voters, share))
    if outcome.challenger is not None:
        confirmed = outcome.ruled and not outcome.changed
        credited[ZERO_ADDRESS if confirmed else outcome.challenger] += parameters.challenge_bond
    credited[outcome.winner if outcome.verdict is Verdict.WINNER else publisher] += reward - fee
    guilty = not outcome.opened or outcome.verdict is Verdict.INVALID
    credited[ZERO_ADDRESS if guilty else publisher] += parameters.bond_of(reward)
    return {account: amount for account, amount in credited.items() if amount}


def dropped_payouts(parameters: Parameters, publisher: Address, reward: int) -> dict[Address, int]:
    """What dropping a task credits: the reward whole, the bond burned."""
    credited = Counter({publisher: reward})
    credited[ZERO_ADDRESS] += parameters.bond_of(reward)
    return {account: amount for account, amount in credited.items() if amount}


def bond_burned(
    verdict: Verdict, rank: tuple[int, int, int], winner_rank: tuple[int, int, int] | None
) -> bool:
    """Whether a revealer of ``rank`` (``pouw.types.rank_key``) loses the miner's bond."""
    if verdict is Verdict.NO_TRUE_CLAIM:
        return True
    return verdict is Verdict.WINNER and winner_rank is not None and rank < winner_rank


def verdict_fits(
    verdict: Verdict, winner: Address, revealers: Mapping[Address, object] | frozenset[Address]
) -> bool:
    """Whether a vote or ruling makes sense after what was revealed."""
    if verdict is Verdict.NONE:
        return False
    if verdict is Verdict.WINNER:
        return winner in revealers
    return winner == ZERO_ADDRESS and (verdict is Verdict.INVALID or len(revealers) > 0)


def check_parameters(p: Parameters) -> None:
    """Refuse (``Reverted``: InvalidParameter) what no arena can be deployed with."""
    no_arbiter = p.arbiter == ZERO_ADDRESS
    seats = len(p.oracles)
    sound = {
        "phase1": 0 < p.phase1 <= MAX_WINDOW_SECONDS,
        "keyWindow": 0 < p.key_window <= MAX_WINDOW_SECONDS,
        "revealWindow": 0 < p.reveal_window <= MAX_WINDOW_SECONDS,
        "reportWindow": 0 < p.report_window <= MAX_WINDOW_SECONDS,
        "challengeWindow": (p.challenge_window == 0) == no_arbiter
        and p.challenge_window <= MAX_WINDOW_SECONDS,
        "rulingWindow": (p.ruling_window == 0) == no_arbiter
        and p.ruling_window <= MAX_WINDOW_SECONDS,
        "minReward": p.min_reward > 0,
        "publisherBondBps": p.publisher_bond_bps <= 10_000,
        "oracleFeeBps": p.oracle_fee_bps <= 10_000,
        "oracles": 0 < seats <= MAX_ORACLES
        and len(set(p.oracles)) == seats
        and ZERO_ADDRESS not in p.oracles,
        "threshold": seats < 2 * p.threshold and p.threshold <= seats,
    }
    for name, holds in sound.items():
        if not holds:
            raise Reverted("InvalidParameter", {"name": name})
