"""How a round ended, for whom it concerns: said once, when its end is confirmed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from pouw.events import Revealed, RoundClosed
from pouw.ledger import rules
from pouw.roles.base import Setup
from pouw.roles.feed import Feed, RoundEvents
from pouw.roles.means import amount
from pouw.types import ZERO_ADDRESS, Address, TaskId, Verdict, rank_key

_TOLD: Final = "told"
_NOBODY_CAME: Final = (
    "nobody committed either: miners must be able to fetch the images, so keep `pouw store serve "
    "--host 0.0.0.0` running and tell them its address; and the reward must be worth their time"
)
_PUBLISHER: Final = Address("the publisher")


def why_no_winner(verdict: Verdict, *, opened: bool, reveals: int) -> str:
    """Why a closed round has no winner."""
    if verdict is Verdict.INVALID:
        return "the task was judged invalid"
    if verdict is Verdict.NO_TRUE_CLAIM:
        return "no claim was true"
    if not opened:
        return "its test set was not opened in time"
    return "the committee came to no verdict" if reveals else "no model was revealed"


def tell_miner(setup: Setup, feed: Feed) -> None:
    """Say how each closed round ended that this account committed to."""
    address = setup.arena.sender.address
    for closed, events in feed.closed():
        key = f"round {closed.round}"
        if address not in events.commits or _was_told(setup, key):
            continue
        reveal = events.reveals.get(address)
        burned = reveal is not None and _burned(feed, closed, events, reveal)
        if closed.winner == address:
            text = f"won {amount(setup.arena, _paid(setup, closed)[1])}"
        else:
            text = f"{_end(closed, events)}; {_fate(reveal, burned=burned)}"
        (setup.warn if burned else setup.info)(f"{key}: {text}", round=closed.round)
        _mark_told(setup, key)


def tell_publisher(setup: Setup, feed: Feed, mine: Collection[TaskId]) -> None:
    """Say what became of each of these tasks whose round was closed or which was dropped."""
    arena = setup.arena
    for closed, events in feed.closed():
        key, task_id = f"round {closed.round}", events.task_id
        if task_id is None or task_id not in mine or _was_told(setup, key):
            continue
        cost = amount(arena, _paid(setup, closed)[0])
        text = f"{key}, task {task_id}: {_end(closed, events)}; it cost {cost}"
        if closed.verdict is Verdict.WINNER:
            setup.info(text, round=closed.round, task=task_id)
        elif events.commits:
            setup.warn(text, round=closed.round, task=task_id)
        else:
            setup.warn(text, round=closed.round, task=task_id, hint=_NOBODY_CAME)
        _mark_told(setup, key)
    for task_id in sorted(feed.dropped.intersection(mine)):
        key = f"task {task_id}"
        if _was_told(setup, key):
            continue
        bond = amount(arena, arena.parameters().bond_of(arena.task(task_id).reward))
        setup.warn(
            f"{key} was dropped: its data key did not come in time; the bond, {bond}, is burned, "
            "the reward can be withdrawn",
            task=task_id,
        )
        _mark_told(setup, key)


def _was_told(setup: Setup, key: str) -> bool:
    return bool(setup.journal.get(_TOLD, f"{setup.arena.address}/{key}"))


def _mark_told(setup: Setup, key: str) -> None:
    setup.journal.put(_TOLD, f"{setup.arena.address}/{key}", True)


def _end(closed: RoundClosed, events: RoundEvents) -> str:
    if closed.verdict is Verdict.WINNER:
        return f"{closed.winner}'s {_dice(closed.score)} won"
    opened, reveals = events.test_key is not None, len(events.reveals)
    return f"no winner, {why_no_winner(closed.verdict, opened=opened, reveals=reveals)}"


def _fate(reveal: Revealed | None, *, burned: bool) -> str:
    if reveal is None:
        return "nothing was revealed here"
    claim = _dice(reveal.claimed_score)
    if burned:
        return f"the claim of {claim} here was judged false, its bond is burned"
    return f"the bond of the claim here, {claim}, comes back"


def _burned(feed: Feed, closed: RoundClosed, events: RoundEvents, reveal: Revealed) -> bool:
    first = events.task_id is not None and feed.published[events.task_id].first

    def rank(one: Revealed) -> tuple[int, int, int]:
        committed_at = events.commits[one.miner].committed_at
        return rank_key(one.claimed_score, committed_at, one.miner, first=first)

    won = events.reveals.get(closed.winner)
    return rules.bond_burned(closed.verdict, rank(reveal), rank(won) if won else None)


def _paid(setup: Setup, closed: RoundClosed) -> tuple[int, int]:
    """What the round cost its publisher, and what its winner was paid."""
    arena, parameters = setup.arena, setup.arena.parameters()
    ended = arena.round(closed.round)
    reward = arena.task(ended.task_id).reward
    outcome = rules.Outcome(
        opened=ended.opened,
        verdict=closed.verdict,
        winner=closed.winner,
        voters=tuple(
            oracle for seat, oracle in enumerate(parameters.oracles) if ended.voters >> seat & 1
        ),
        challenger=None if ended.challenger == ZERO_ADDRESS else ended.challenger,
        ruled=ended.ruled,
        changed=ended.changed,
    )
    # Under a name of its own: an account may have several roles.
    paid = rules.payouts(parameters, _PUBLISHER, reward, outcome)
    escrow = reward + parameters.bond_of(reward)
    return escrow - paid.get(_PUBLISHER, 0), paid.get(closed.winner, 0)


def _dice(ppm: int) -> str:
    return f"{ppm // 100 / 10_000:.4f}"
