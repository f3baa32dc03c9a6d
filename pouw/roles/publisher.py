"""The publisher: seals data, escrows a reward, releases both keys in their windows."""

from __future__ import annotations

import enum
import tempfile
from collections.abc import Callable
from pathlib import Path

from pouw.errors import ConfigError, JournalError
from pouw.events import Revealed
from pouw.hashing import data_key_of, key_hash_of, raw_cid
from pouw.roles.base import Errands, Setup, Status
from pouw.roles.content import fetch_manifest
from pouw.roles.feed import Feed
from pouw.roles.keeping import files_of, hold
from pouw.roles.offer import Progress, PublishRequest, seal_offer
from pouw.roles.view import View, read_view
from pouw.sealing import new_test_key
from pouw.types import Address, RoundNumber, TaskId, Verdict

TASKS = "tasks"
WINNERS = "winners"

__all__ = ["Progress", "PublishRequest", "Publisher", "Step", "decide"]


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
        return Step.OPEN_TEST if view.now < at.t2 else Step.FINALIZE
    if selected and view.opens is not None and view.closes is not None:
        if selected.task_id in mine and view.confirmed >= view.opens:
            return Step.RELEASE_DATA_KEY if view.now < view.closes else Step.SYNC
        if view.now >= view.closes:
            return Step.SYNC
    if live and live.task_id in mine and view.decided:
        return Step.FINALIZE
    if credit:
        return Step.WITHDRAW
    return Step.WAIT


class Publisher:
    """Publishes tasks and serves their keys; everything it must remember is in its journal."""

    def __init__(self, setup: Setup, *, inline: bool = False) -> None:
        self._setup = setup
        self._errands = Errands(setup, inline=inline)
        self._feed = Feed(setup.arena, setup.from_block, setup.confirmations)
        self._address: Address = setup.arena.sender.address

    def publish(self, request: PublishRequest, progress: Progress | None = None) -> TaskId:
        """Seal, store and publish; the new task's id.

        The test key is in the journal before anything that it seals leaves this machine, and the
        spec's digest before the transaction: a command that was killed is run again with the same
        title and takes up the task that it had sealed.
        """
        if not request.data_will_be_public:
            raise ConfigError(
                "training data, test set and the winner's model become public for ever",
                hint="say so with --data-will-be-public once everybody concerned agrees",
            )
        say = progress or (lambda _stage, _done, _total: None)
        digest = self._unfinished(request.title)
        if digest is None:
            digest = self._prepare(request, say)
        say("publish", 0, 1)
        task_id = self._sent_before(digest) or self._send(request, digest)
        self._remember(digest, task_id)
        say("publish", 1, 1)
        self._setup.info(f"published task {task_id}: {request.title}", task=task_id)
        return task_id

    def run_once(self) -> Status:
        """Look, decide, act; safe to call at any moment and after any crash."""
        view = read_view(self._setup.arena, self._setup.confirmations)
        self._feed.poll()
        mine = self._my_tasks()
        credit = self._setup.arena.credit(self._address)
        step = decide(view, frozenset(mine), credit)
        self._act(step, view, mine)
        self._keep_winners(frozenset(mine))
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

    def close(self) -> None:
        """Wait for what is under way."""
        self._errands.close()

    def _act(self, step: Step, view: View, mine: dict[TaskId, bytes]) -> None:
        arena, errands = self._setup.arena, self._errands
        match step:
            case Step.WAIT:
                pass
            case Step.SYNC:
                errands.send("sync", arena.sync)
            case Step.RELEASE_DATA_KEY if view.selected:
                data_key = data_key_of(mine[view.selected.task_id])
                name = f"release the data key of task {view.selected.task_id}"
                errands.send(name, lambda: arena.release_data_key(data_key))
            case Step.OPEN_TEST if view.live:
                test_key = mine[view.live.task_id]
                name = f"open the test set of round {view.live.number}"
                errands.send(name, lambda: arena.open_test(test_key))
            case Step.FINALIZE if view.live:
                errands.send(f"close round {view.live.number}", arena.finalize)
            case Step.WITHDRAW:
                errands.send("withdraw", lambda: arena.withdraw(self._address))

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

    def _my_tasks(self) -> dict[TaskId, bytes]:
        mine: dict[TaskId, bytes] = {}
        for key, value in self._setup.journal.items(TASKS):
            digest = bytes.fromhex(key)
            task_id = value["task_id"]
            if task_id is None:
                task_id = self._published(digest, self._feed)
                if task_id is None:
                    continue
                self._remember(digest, task_id)
            mine[TaskId(task_id)] = bytes.fromhex(value["test_key"])
        return mine

    def _unfinished(self, title: str) -> bytes | None:
        for key, value in self._setup.journal.items(TASKS):
            if value["task_id"] is None and value["title"] == title:
                return bytes.fromhex(key)
        return None

    def _sent_before(self, digest: bytes) -> TaskId | None:
        """The task that an earlier run published, once what it left on its way has arrived."""
        self._setup.arena.sender.settle()
        return self._published(digest, Feed(self._setup.arena, self._setup.from_block, 1))

    def _published(self, digest: bytes, feed: Feed) -> TaskId | None:
        feed.poll()
        for event in feed.published.values():
            if event.spec_digest == digest and event.publisher == self._address:
                return event.task_id
        return None

    def _prepare(self, request: PublishRequest, say: Progress) -> bytes:
        test_key = new_test_key()
        with tempfile.TemporaryDirectory(prefix="publish-", dir=self._setup.home) as scratch:
            spec = seal_offer(request, test_key, self._setup.store, Path(scratch), say)
        digest = spec.digest()
        self._setup.journal.put(
            TASKS,
            digest.hex(),
            {"test_key": test_key.hex(), "title": request.title, "task_id": None},
        )
        self._setup.store.put_bytes(spec.encode())
        for cid in (raw_cid(digest), spec.train.cid, spec.test.cid):
            self._setup.store.pin(cid)
        return digest

    def _send(self, request: PublishRequest, digest: bytes) -> TaskId:
        arena = self._setup.arena
        test_key = bytes.fromhex(self._setup.journal.get(TASKS, digest.hex())["test_key"])
        return arena.publish(
            digest,
            key_hash_of(test_key),
            request.min_score_ppm,
            request.reward_wei,
            first=request.first,
        )

    def _remember(self, digest: bytes, task_id: TaskId) -> None:
        journal = self._setup.journal
        value = journal.get(TASKS, digest.hex())
        if value is None:
            raise JournalError(f"the journal {journal.path} lost task {task_id}")
        journal.put(TASKS, digest.hex(), {**value, "task_id": task_id})
