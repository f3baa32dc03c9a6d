"""The publisher: seals data, escrows a reward, releases both keys in their windows."""

from __future__ import annotations

import enum
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pouw.errors import ConfigError, ContentNotFound
from pouw.events import Revealed, TaskPublished
from pouw.hashing import data_key_of, key_hash_of, raw_cid
from pouw.roles.base import Errands, Setup, Status
from pouw.roles.content import fetch_manifest
from pouw.roles.drafts import Draft, Drafts, request_digest
from pouw.roles.feed import Feed
from pouw.roles.keeping import files_of, hold
from pouw.roles.means import check_means, check_reward
from pouw.roles.offer import Progress, PublishRequest, seal_offer
from pouw.roles.view import View, read_view
from pouw.sealing import new_test_key
from pouw.types import Address, RoundNumber, TaskId, Verdict

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
        self._drafts = Drafts(setup.journal)
        self._feed = Feed(setup.arena, setup.from_block, setup.confirmations)
        self._address: Address = setup.arena.sender.address

    def publish(self, request: PublishRequest, progress: Progress | None = None) -> TaskId:
        """Seal, store and publish; the new task's id.

        Money is looked at before any image is. What was sealed is in the journal, with the key that
        opens it, before the transaction: a command that was killed is run again with the same
        images and options and takes up what it had sealed. ConfigError where the request cannot be
        published, or an earlier run turns out to have published the folder otherwise.
        """
        if not request.data_will_be_public:
            raise ConfigError(
                "training data, test set and the winner's model become public for ever",
                hint="say so with --data-will-be-public once everybody concerned agrees",
            )
        say = progress or (lambda _stage, _done, _total: None)
        arena = self._setup.arena
        check_reward(arena, request.reward_wei)
        landed = self._landed()
        wanted = request_digest(request, arena, say) if landed else None
        if wanted is not None:
            task_id = self._published_before(request, wanted, landed)
            if task_id is not None:
                return task_id
        check_means(arena, request.reward_wei + arena.parameters().bond_of(request.reward_wei))
        draft = self._draft_for(request, wanted or request_digest(request, arena, say), say)
        say("publish", 0, 1)
        self._drafts.mark_sent(draft)
        task_id = arena.publish(
            draft.digest,
            key_hash_of(draft.test_key),
            request.min_score_ppm,
            request.reward_wei,
            first=request.first,
        )
        self._drafts.mark_told(draft, task_id)
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
        for draft in self._drafts.all():
            task_id = draft.task_id
            if task_id is None:
                event = self._published(draft, self._feed)
                if event is None:
                    continue
                task_id = event.task_id
                self._drafts.mark_published(draft, task_id)
            mine[task_id] = draft.test_key
        return mine

    def _landed(self) -> dict[bytes, TaskPublished]:
        """What earlier runs published without telling anybody, by the spec's digest.

        Waits for what they left on its way; from here on nothing of theirs is.
        """
        landed: dict[bytes, TaskPublished] = {}
        unfinished = self._drafts.unfinished()
        if unfinished:
            self._setup.arena.sender.settle()
            feed = Feed(self._setup.arena, self._setup.from_block, 1)
            feed.poll()
            for draft in unfinished:
                event = self._published(draft, feed)
                if event is not None:
                    landed[draft.digest] = event
        return landed

    def _published(self, draft: Draft, feed: Feed) -> TaskPublished | None:
        for event in feed.published.values():
            if event.spec_digest == draft.digest and event.publisher == self._address:
                return event
        return None

    def _published_before(
        self, request: PublishRequest, wanted: str, landed: dict[bytes, TaskPublished]
    ) -> TaskId | None:
        """The task that an earlier run published for the same request; None where none did.

        ConfigError, once, where it published this folder with other content, options or terms:
        nobody means to escrow twice by correcting a command that was killed.
        """
        terms = (request.reward_wei, request.min_score_ppm, request.first)
        found = [draft for draft in self._drafts.unfinished() if draft.digest in landed]
        for draft in found:
            self._drafts.mark_told(draft, landed[draft.digest].task_id)
        for draft in found:
            event = landed[draft.digest]
            if draft.request == wanted and terms == (event.reward, event.min_score, event.first):
                self._setup.info(
                    f"task {event.task_id} was published by an earlier run: {draft.title}",
                    task=event.task_id,
                )
                return event.task_id
        for draft in found:
            if draft.is_of(request):
                task_id = landed[draft.digest].task_id
                raise ConfigError(
                    f"an earlier run published task {task_id}, sealed {draft.origin}, "
                    "with other images or options",
                    hint=f"`pouw publisher cancel {task_id}` takes it back; to publish this one "
                    "as well, run the same again",
                )
        return None

    def _draft_for(self, request: PublishRequest, wanted: str, say: Progress) -> Draft:
        """What an earlier run sealed for the same request, or a fresh one."""
        for draft in self._drafts.unfinished():
            if draft.request == wanted and self._is_stored(draft):
                self._setup.info(f"taking up what was sealed {draft.origin}")
                return draft
        draft = self._seal(request, wanted, say)
        for old in self._drafts.unfinished():
            if old.digest != draft.digest and old.is_of(request):
                self._supersede(old)
        return draft

    def _is_stored(self, draft: Draft) -> bool:
        """Whether the store has all of it: another may be named now, or have been cleaned."""
        try:
            for cid in draft.cids:
                self._setup.store.pin(cid)
        except ContentNotFound as error:
            self._setup.info(f"seals again what was sealed {draft.origin}: {error}")
            return False
        return True

    def _seal(self, request: PublishRequest, wanted: str, say: Progress) -> Draft:
        store, test_key = self._setup.store, new_test_key()
        with tempfile.TemporaryDirectory(prefix="publish-", dir=self._setup.home) as scratch:
            spec = seal_offer(request, test_key, store, Path(scratch), say)
        draft = Draft(
            digest=spec.digest(),
            test_key=test_key,
            title=request.title,
            request=wanted,
            folder=str(request.folder.resolve()),
            sealed_at=int(time.time()),
            sent=False,
            cids=(raw_cid(spec.digest()), spec.train.cid, spec.test.cid),
        )
        store.put_bytes(spec.encode())
        for cid in draft.cids:
            store.pin(cid)
        self._drafts.add(draft)
        return draft

    def _supersede(self, old: Draft) -> None:
        """Let go of what the same folder was sealed as before, unless it may be published yet."""
        if old.sent:
            self._setup.info(
                f"keeps what was sealed {old.origin}: an earlier run tried to publish it; "
                "it does no harm"
            )
            return
        self._drafts.discard(old)
        for cid in old.cids:
            self._setup.store.unpin(cid)
        self._setup.info(f"gave up what was sealed {old.origin}: images or options have changed")
