"""The publisher: seals data, escrows a reward, releases both keys in their windows."""

from __future__ import annotations

import enum
from collections.abc import Callable

from pouw.events import Revealed
from pouw.hashing import data_key_of, raw_cid
from pouw.roles.base import Errands, Setup, Status
from pouw.roles.clock import ClockWatch
from pouw.roles.content import fetch_manifest
from pouw.roles.drafts import Draft, Drafts
from pouw.roles.feed import Feed
from pouw.roles.keeping import files_of, hold
from pouw.roles.means import GasWatch
from pouw.roles.offer import Progress, PublishRequest
from pouw.roles.outcome import tell_publisher
from pouw.roles.publication import Publication, is_gone, task_of
from pouw.roles.view import View, read_view
from pouw.types import Address, RoundNumber, TaskId, Verdict

WINNERS = "winners"

__all__ = [
    "Progress",
    "PublishRequest",
    "Publisher",
    "Step",
    "calls_to_come",
    "decide",
    "is_pressed",
]


class Step(enum.StrEnum):
    """What a publisher does next."""

    WAIT = "wait"
    SYNC = "sync"
    RELEASE_DATA_KEY = "release the data key"
    OPEN_TEST = "open the test set"
    FINALIZE = "close the round"
    WITHDRAW = "withdraw"


def decide(view: View, mine: frozenset[TaskId], credit: int) -> Step:
    """The publisher's next call; keys leave only when a confirmed block is past the boundary."""
    selected, live, at = view.selected, view.live, view.deadlines
    if live and at and live.task_id in mine and not live.opened and view.confirmed >= at.t1:
        return Step.OPEN_TEST if view.contract_now < at.t2 else Step.FINALIZE
    if selected and view.opens is not None and view.closes is not None:
        if selected.task_id in mine and view.confirmed >= view.opens:
            return Step.RELEASE_DATA_KEY if view.contract_now < view.closes else Step.SYNC
        if view.contract_now >= view.closes:
            return Step.SYNC
    if live and live.task_id in mine and view.decided:
        return Step.FINALIZE
    if credit:
        return Step.WITHDRAW
    return Step.WAIT


def is_pressed(view: View) -> bool:
    """Whether a key window is in its last third, where a key leaves at any depth.

    A reorganisation that reaches back behind the boundary would have to undo the other two thirds;
    a key that waits on costs the bond for certain.
    """
    live, at, third = view.live, view.deadlines, view.parameters.key_window // 3
    ends = [at.t2] if live and at and not live.opened else []
    if view.closes is not None:
        ends.append(view.closes)
    return any(end - third <= view.now < end for end in ends)


def calls_to_come(view: View, mine: frozenset[TaskId]) -> int:
    """Those that tasks which are not over still need: both keys, and the closing."""
    calls = 3 * len(mine)
    if view.live and view.live.task_id in mine:
        calls -= 2 if view.live.opened else 1
    return calls


class Publisher:
    """Publishes tasks and serves their keys; everything it must remember is in its journal."""

    def __init__(self, setup: Setup, *, inline: bool = False) -> None:
        self._errands = Errands(setup, inline=inline)
        self._setup = setup = setup.until(self._errands.ending)
        self._drafts = Drafts(setup.journal)
        self._feed = Feed(setup.arena, setup.from_block, setup.confirmations)
        self._gas = GasWatch(setup)
        self._depth_checked = False
        self._address: Address = setup.arena.sender.address
        self._clock = ClockWatch(setup)

    def publish(self, request: PublishRequest, progress: Progress | None = None) -> TaskId:
        """Seal, store and publish; the new task's id. See `Publication`."""
        return Publication(self._setup).publish(request, progress)

    def run_once(self) -> Status:
        """Look, decide, act; safe to call at any moment and after any crash."""
        view = read_view(self._setup.arena, self._setup.confirmations)
        if is_pressed(view):
            view = read_view(self._setup.arena, 1)
        self._check_depth(view)
        self._clock.look(view)
        self._feed.poll()
        mine = self._my_tasks()
        credit = self._setup.arena.credit(self._address)
        step = decide(view, frozenset(mine), credit)
        self._act(step, view, mine)
        self._keep_winners(frozenset(mine))
        tell_publisher(self._setup, self._feed, mine)
        self._gas.look(calls_to_come(view, frozenset(mine) - self._feed.over))
        boundary = view.next_boundary()
        return Status(
            role="publisher",
            phase=view.phase,
            doing=step.value,
            next=f"{boundary[0]} in {boundary[1] - view.now} s"
            if boundary
            else "nothing to wait for",
            data={"tasks": sorted(mine), "credit_wei": str(credit)},
        )

    def _check_depth(self, view: View) -> None:
        """Say once where blocks come too slowly for keys to wait for so many of them."""
        if self._depth_checked:
            return
        self._depth_checked = True
        arena, blocks = self._setup.arena, self._setup.confirmations
        latest = arena.endpoint.timestamp("latest")
        seconds = latest - arena.endpoint.timestamp(arena.confirmed_block(blocks))
        window = view.parameters.key_window
        if 3 * seconds >= 2 * window:
            self._setup.warn(
                f"the last {blocks} blocks took {seconds} s, a key has {window} s: keys leave in "
                "the last third of their window, unconfirmed",
                hint="lower --confirmations",
            )

    def finish(self) -> None:
        """Wait for what is under way."""
        self._errands.finish()

    def close(self) -> None:
        """Wait for what is under way, but fetch no more."""
        self._errands.close()

    def _act(self, step: Step, view: View, mine: dict[TaskId, Draft]) -> None:
        arena, errands = self._setup.arena, self._errands
        match step:
            case Step.WAIT:
                pass
            case Step.SYNC:
                errands.send("sync", arena.sync)
            case Step.RELEASE_DATA_KEY if view.selected:
                draft = mine[view.selected.task_id]
                name = f"release the data key of task {view.selected.task_id}"
                errands.send(name, lambda: self._release(draft))
            case Step.OPEN_TEST if view.live:
                test_key = mine[view.live.task_id].test_key
                name = f"open the test set of round {view.live.number}"
                errands.send(name, lambda: arena.open_test(test_key))
            case Step.FINALIZE if view.live:
                errands.send(f"close round {view.live.number}", arena.finalize)
            case Step.WITHDRAW:
                errands.send("withdraw", lambda: arena.withdraw(self._address))

    def _release(self, draft: Draft) -> None:
        self._drafts.mark_key_sent(draft)
        self._setup.arena.release_data_key(data_key_of(draft.test_key))

    def _keep_winners(self, mine: frozenset[TaskId]) -> None:
        """Bring the models that were paid for here, while their miners still serve them."""
        for closed, events in self._feed.closed():
            bought = events.task_id in mine and closed.verdict == Verdict.WINNER
            if bought and not self._setup.journal.get(WINNERS, str(closed.round)):
                number, reveal = closed.round, events.reveals[closed.winner]
                self._errands.prepare(
                    f"keep the winner of round {number}", self._keeping(number, reveal)
                )

    def _keeping(self, number: RoundNumber, reveal: Revealed) -> Callable[[], None]:
        def keep() -> None:
            store = self._setup.store
            for cid, size in files_of(fetch_manifest(store, reveal.manifest_digest)):
                hold(store, cid, size)
            store.pin(raw_cid(reveal.manifest_digest))
            self._setup.journal.put(WINNERS, str(number), True)
            self._setup.info(f"keeps the winner of round {number}", round=number)

        return keep

    def _my_tasks(self) -> dict[TaskId, Draft]:
        mine: dict[TaskId, Draft] = {}
        for draft in self._drafts.all():
            if is_gone(self._setup.arena, draft, self._feed):
                self._drafts.mark_gone(draft)
                self._setup.warn(
                    f"task {draft.task_id} is gone, the chain was reorganised without it: "
                    f"{draft.title}",
                    task=draft.task_id,
                    hint="its escrow is back in the account; to publish it, run the same "
                    "`pouw publisher publish` again: it takes up what was sealed",
                )
                continue
            task_id = task_of(self._address, draft, self._feed)
            if task_id is None:
                continue
            if task_id != draft.task_id:
                self._drafts.mark_published(draft, task_id)
                self._tell_id(draft, task_id)
            mine[task_id] = draft
        return mine

    def _tell_id(self, draft: Draft, task_id: TaskId) -> None:
        if draft.task_id is None:
            self._setup.info(f"task {task_id} is on the chain: {draft.title}", task=task_id)
            return
        self._setup.warn(
            f"task {draft.task_id} is task {task_id} now, the chain was reorganised: {draft.title}",
            task=task_id,
        )
