"""From a request to a task on the chain: sealed once, paid for once, however often it is killed."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pouw.chain.arena import ArenaClient
from pouw.chain.rpc import BlockTag
from pouw.errors import ConfigError, ContentNotFound
from pouw.events import TaskPublished
from pouw.files import LockedError, locked
from pouw.hashing import key_hash_of, raw_cid
from pouw.roles.asked import Asked, asked_for
from pouw.roles.base import Setup
from pouw.roles.drafts import Draft, Drafts
from pouw.roles.feed import Feed
from pouw.roles.known import check_unknown
from pouw.roles.means import CALL_GAS, check_means, check_reward
from pouw.roles.offer import Progress, PublishRequest, seal_offer
from pouw.sealing import new_test_key
from pouw.types import Address, Task, TaskId

# Publishing now; both keys and the closing later, for three times as much a unit as now: whoever
# cannot pay for a key then loses the bond.
TASK_GAS = CALL_GAS + 3 * 3 * CALL_GAS


class Publication:
    """Publishes tasks for one account; what it must remember is in the journal."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._drafts = Drafts(setup.journal)

    def publish(self, request: PublishRequest, progress: Progress | None = None) -> TaskId:
        """Seal, store and publish; the new task's id.

        Money is looked at before any image is. What was sealed is in the journal, with the key that
        opens it, before the transaction: a command that was killed is run again with the same
        images and options and takes up what it had sealed. ConfigError where the request cannot be
        published, an earlier run turns out to have published the folder otherwise, the same is in
        the pool already, or miners know the images that would be hidden.
        """
        if not request.data_will_be_public:
            raise ConfigError(
                "training data, test set and the winner's model become public for ever",
                hint="say so with --data-will-be-public once everybody concerned agrees",
            )
        if self._setup.journal.damage is not None:
            raise self._setup.journal.damage  # a new key would be lost with it
        say = progress or (lambda _stage, _done, _total: None)
        with self._alone():
            return self._publish(request, say)

    def _publish(self, request: PublishRequest, say: Progress) -> TaskId:
        arena = self._setup.arena
        check_reward(arena, request.reward_wei)
        lost = self._lost()
        landed = self._landed()
        waiting = [] if request.again else self._waiting()
        asked = asked_for(request, arena, say) if landed or waiting else None
        if asked is not None:
            task_id = self._published_before(request, asked.digest, landed)
            if task_id is not None:
                return task_id
            _refuse_twice(request, asked.digest, waiting)
        escrow_wei = request.reward_wei + arena.parameters().bond_of(request.reward_wei)
        check_means(arena, escrow_wei, TASK_GAS)
        asked = asked or asked_for(request, arena, say)
        if not request.test_set_may_be_known:
            ids = {digest: event.task_id for digest, event in landed.items()}
            check_unknown(request, asked, self._drafts, arena, ids)
        draft = self._draft_for(request, asked, lost, say)
        say("publish", 0, 1)
        self._drafts.mark_sent(draft)
        task_id = arena.publish(
            draft.digest,
            key_hash_of(draft.test_key),
            request.min_score_ppm,
            request.reward_wei,
            first=request.first,
        )
        self._drafts.mark_told(draft, task_id, arena.endpoint.block_number())
        say("publish", 1, 1)
        self._setup.info(f"published task {task_id}: {request.title}", task=task_id)
        return task_id

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """ConfigError where another process publishes from this home: both would pay."""
        try:
            with locked(self._setup.home / "publishing.lock"):
                yield
        except LockedError as error:
            raise ConfigError(
                f"{error.holder} publishes from {self._setup.home} now",
                hint="wait until it has ended, then run the same again",
            ) from error

    def _lost(self) -> list[Draft]:
        """What a reorganisation took back since somebody was told of it.

        Waits for what it put back among those that wait; one that has another id now has it in the
        journal from here on.
        """
        arena, lost = self._setup.arena, list[Draft]()
        missing = [one for one in self._drafts.all() if one.told and not _is_there(arena, one)]
        if missing:
            feed = self._settled()
            for draft in missing:
                if published_by(arena.sender.address, draft, feed):
                    task_id = task_of(arena.sender.address, draft, feed)
                    if task_id is not None and task_id != draft.task_id:
                        self._drafts.mark_published(draft, task_id)
                elif not _is_there(arena, draft):
                    lost.append(draft)
        return lost

    def _settled(self) -> Feed:
        """What is on the chain once nothing of this account is on its way."""
        self._setup.arena.sender.settle()
        feed = Feed(self._setup.arena, self._setup.from_block, 1)
        feed.poll()
        return feed

    def _landed(self) -> dict[bytes, TaskPublished]:
        """What earlier runs published without telling anybody, by the spec's digest.

        Waits for what they left on its way; from here on nothing of theirs is.
        """
        arena, landed = self._setup.arena, dict[bytes, TaskPublished]()
        unfinished = self._drafts.unfinished()
        if unfinished:
            feed = self._settled()
            for draft in unfinished:
                event = published_by(arena.sender.address, draft, feed)
                if event is not None:
                    landed[draft.digest] = event
        return landed

    def _published_before(
        self, request: PublishRequest, wanted: str, landed: dict[bytes, TaskPublished]
    ) -> TaskId | None:
        """The task that an earlier run published for the same request; None where none did.

        ConfigError, once, where it published this folder with other content, options or terms:
        nobody means to escrow twice by correcting a command that was killed.
        """
        terms = (request.reward_wei, request.min_score_ppm, request.first)
        found = [draft for draft in self._drafts.unfinished() if draft.digest in landed]
        for draft in sorted(found, key=lambda one: one.request != wanted):
            same, event = draft.request == wanted, landed[draft.digest]
            if not same and not draft.is_of(request):
                continue
            block = self._setup.arena.endpoint.block_number()
            self._drafts.mark_told(draft, event.task_id, block)
            if not same or terms != (event.reward, event.min_score, event.first):
                raise ConfigError(
                    f"an earlier run published task {event.task_id}, sealed {draft.origin}, "
                    "with other images, options or terms",
                    hint=f"`pouw publisher cancel {event.task_id}` takes it back; to publish this "
                    "one as well, run the same again with --again",
                )
            self._setup.info(
                f"task {event.task_id} was published by an earlier run: {draft.title}",
                task=event.task_id,
            )
            return event.task_id
        return None

    def _waiting(self) -> list[tuple[Draft, Task]]:
        """What this account is known to have published that has not begun."""
        arena, found = self._setup.arena, list[tuple[Draft, Task]]()
        selected = arena.state().selected
        for draft in self._drafts.all():
            if draft.told and draft.task_id is not None:
                task = arena.task(draft.task_id)
                if _is_of(task, arena.sender.address, draft) and (
                    task.pooled or draft.task_id == selected
                ):
                    found.append((draft, task))
        return found

    def _draft_for(
        self, request: PublishRequest, asked: Asked, lost: list[Draft], say: Progress
    ) -> Draft:
        """What an earlier run sealed for the same request, or a fresh one."""
        for draft in (*self._drafts.unfinished(), *lost):
            same = draft.request == asked.digest and self._drafts.names(draft)
            if same and self._is_stored(draft):
                self._setup.info(f"taking up what was sealed {draft.origin}")
                return draft
        draft = self._seal(request, asked, say)
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

    def _seal(self, request: PublishRequest, asked: Asked, say: Progress) -> Draft:
        store, test_key = self._setup.store, new_test_key()
        with tempfile.TemporaryDirectory(prefix="publish-", dir=self._setup.home) as scratch:
            offer = seal_offer(request, test_key, store, Path(scratch), say, self._setup.info)
        spec = offer.spec
        draft = Draft(
            digest=spec.digest(),
            test_key=test_key,
            title=request.title,
            request=asked.digest,
            folder=str(request.folder.resolve()),
            sealed_at=int(time.time()),
            sent=False,
            cids=(raw_cid(spec.digest()), spec.train.cid, spec.test.cid),
        )
        store.put_bytes(spec.encode())
        for cid in draft.cids:
            store.pin(cid)
        self._drafts.add(draft, asked.images, offer.names)
        return draft

    def _supersede(self, old: Draft) -> None:
        """Let go of what the same folder was sealed as before, unless it may be published yet."""
        if not self._drafts.discard(old):
            self._setup.info(
                f"keeps what was sealed {old.origin}: an earlier run tried to publish it; "
                "it does no harm"
            )
            return
        for cid in old.cids:
            self._setup.store.unpin(cid)
        self._setup.info(f"gave up what was sealed {old.origin}: images or options have changed")


def _refuse_twice(request: PublishRequest, wanted: str, waiting: list[tuple[Draft, Task]]) -> None:
    """ConfigError where the same images are offered for the same already; rewards may have grown.

    Nobody means to escrow twice by running a command once more.
    """
    for draft, task in waiting:
        terms = (task.min_score, task.first) == (request.min_score_ppm, request.first)
        if draft.request == wanted and terms and task.reward >= request.reward_wei:
            where = "in the pool" if task.pooled else "selected"
            raise ConfigError(
                f"this is task {task.task_id} already, {where}: sealed {draft.origin}",
                hint="add --again to publish it once more",
            )


def task_of(account: Address, draft: Draft, feed: Feed) -> TaskId | None:
    """Which task ``draft`` is, as far as ``feed`` was polled; None where it is none.

    The id in the journal is of a block that was not confirmed; a reorganisation may have given it
    to another task. It is believed as long as the feed knows no task of that id.
    """
    known = None if draft.task_id is None else feed.published.get(draft.task_id)
    if known is not None and _is_of(known, account, draft):
        return known.task_id
    event = published_by(account, draft, feed)
    if event is not None:
        return event.task_id
    return draft.task_id if known is None else None


def is_gone(arena: ArenaClient, draft: Draft, feed: Feed) -> bool:
    """Whether a reorganisation took back a publication of which somebody was told.

    Its block is confirmed now, and what was published is neither there nor in a later one. Logs
    alone do not show that: an endpoint may leave some out, and a feed begin after it. The task
    itself goes only when its publisher cancels it.
    """
    account = arena.sender.address
    if draft.task_id is None or draft.told_at is None or draft.told_at >= feed.next_block:
        return False
    if published_by(account, draft, feed) or draft.told_at < feed.first_block:
        return False
    later = Feed(arena, feed.next_block, 1)
    later.poll()
    # At a block by its number: a node that has not got that far refuses, instead of denying it.
    there = _is_there(arena, draft, later.next_block - 1)
    return not there and published_by(account, draft, later) is None


def _is_there(arena: ArenaClient, draft: Draft, block: BlockTag = "latest") -> bool:
    """Whether the task of the id in the journal is that draft, and was not cancelled."""
    if draft.task_id is None:
        return False
    return _is_of(arena.task(draft.task_id, block), arena.sender.address, draft)


def published_by(account: Address, draft: Draft, feed: Feed) -> TaskPublished | None:
    """The publication of ``draft``, as far as ``feed`` was polled."""
    for event in feed.published.values():
        if _is_of(event, account, draft):
            return event
    return None


def _is_of(found: TaskPublished | Task, account: Address, draft: Draft) -> bool:
    return found.spec_digest == draft.digest and found.publisher == account
