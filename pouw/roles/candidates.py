"""Revealed models on their way to be scored: the next is fetched while one is being scored."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pouw.documents import Judged, TaskSpec
from pouw.errors import ContentError, ContentMismatch, ContentTooLarge, PouwError
from pouw.events import Revealed
from pouw.files import of_machine
from pouw.roles.base import FETCHES, RETRY_SECONDS, Errands, Setup
from pouw.roles.content import fetch_manifest
from pouw.roles.evidence import judge_manifest, judged_score
from pouw.roles.keeping import Keeper, files_of
from pouw.roles.patience import Patience
from pouw.roles.provenance import (
    MODEL_FILE,
    Claim,
    Provenance,
    checkpoint_path,
    fetch,
    recipe_fault,
)
from pouw.storage.mirrors import Mirrors
from pouw.storage.store import Store
from pouw.types import RoundNumber, Task

Result = TypeVar("Result")

_AHEAD = 2  # candidates fetched and not judged: the one that is scored, and the next
_SLOW_SECONDS = 60.0  # after which a fetch keeps no other one waiting
_LONGEST_PAUSE_SECONDS = 60.0
_CROWD = FETCHES * 3 // 4  # fetches under way, from which on slow ones are broken off for others


@dataclass(frozen=True, slots=True)
class Missing:
    """Content that could not be had: how often it was tried, and what was answered last, and when.

    ``broken_off``: it was arriving, too slowly for the others. ``at`` is on the chain's clock.
    """

    attempts: int
    answer: str
    at: int
    broken_off: bool = False

    def __str__(self) -> str:
        return f"not to be had in {self.attempts} attempt(s) until now; the last: {self.answer}"


@dataclass(slots=True)
class Candidates:
    """Manifests and weights of one round, fetched in rank order and checked against their CIDs.

    Checkpoints, of which there can be a lot, follow where the score has shown the claim to be true
    and the spec asks for provenance, link by link. What is fetched lies in a folder of the claim
    until all of it is as it should be; only then is it kept, so nothing has to be let go, or could
    be by mistake, where it is not.

    Fetches run as errands, several beside each other where one is slow: a miner that serves a byte
    now and then must not keep the reveals below waiting. Where many are slow, the one that began
    first is broken off for others, and goes on later. ``missing`` holds the reveals whose content
    no place has (yet); they are asked for again ever more rarely, and once more near the end.

    ``patience`` is that of the moment, which its user keeps.
    """

    setup: Setup
    errands: Errands
    number: RoundNumber
    task: Task
    spec: TaskSpec
    provenance: Provenance
    data_key: bytes
    keeper: Keeper
    patience: Patience
    missing: dict[Revealed, Missing] = field(default_factory=dict)
    _found: dict[Revealed, Judged | Path] = field(default_factory=dict)
    _linked: dict[Revealed, str] = field(default_factory=dict)
    _over: bool = False
    _begun: dict[Revealed, float] = field(default_factory=dict)
    _since: dict[Revealed, int] = field(default_factory=dict)
    _under_way: dict[Revealed, threading.Event] = field(default_factory=dict)
    _again_at: dict[Revealed, float] = field(default_factory=dict)

    def fetch(self, ranked: Iterable[Revealed]) -> None:
        """Ask for the first of ``ranked`` (none of them judged yet) that are not here."""
        self._make_room()
        ranked, ahead = tuple(ranked), 0
        for event in ranked:
            if event in self.missing:
                continue
            if event not in self._found:
                self._ask_weights(event)
            # What is slow must not keep the ones below it waiting.
            ahead += not self._slow(event)
            if ahead == _AHEAD:
                break
        room = _CROWD - 1 - len(self._under_way)
        for event in ranked:
            missing = self.missing.get(event)
            # What was broken off for others goes on once all of them were asked for.
            waits = missing is None or (missing.broken_off and ahead == _AHEAD)
            if not waits and room > 0 and self._is_due(event):
                self._ask_weights(event)
                room -= 1

    def chain_fault(self, event: Revealed) -> str | None:
        """What is wrong with the checkpoints behind a score that holds, "" where nothing is.

        None until that is known; asks for them.
        """
        if event not in self._linked:
            if self._found.pop(event, None) is not None:
                self._forget_start(event)  # that of the weights
            if self._is_due(event):
                name = f"check the checkpoints that {event.miner} revealed in round {self.number}"
                self._ask(name, event, self._check, self._linked)
        return self._linked.get(event)

    def awaited(self, event: Revealed) -> bool:
        """Whether what it lacks is on its way, and those below it have to wait for it."""
        return event not in self.missing and not self._slow(event)

    def given_up(self, event: Revealed) -> Missing | None:
        """What to say of content that is not here although it was asked for in good time.

        Where it was missing, that is more than once and near the end again.
        """
        missing, since = self.missing.get(event), self._since.get(event)
        if missing is not None and not missing.broken_off:
            if missing.attempts > 1 and missing.at >= self.patience.last_look:
                return missing
            if event not in self._under_way:
                return None
        if since is None or since > self.patience.asked_by or not self._slow(event):
            return None
        if missing is not None and missing.broken_off:
            return missing
        now = self.patience.now
        return Missing(1, f"it was still arriving after {now - since} s", now)

    def end(self) -> None:
        """Break off what is under way and keep nothing more: the round has moved on."""
        self._over = True
        for stop in list(self._under_way.values()):
            stop.set()

    def _is_due(self, event: Revealed) -> bool:
        """Whether what is missing is to be asked for again: after a pause, and near the end."""
        missing, last_look = self.missing.get(event), self.patience.last_look
        if missing is not None and missing.at < last_look <= self.patience.now:
            return True
        return time.monotonic() >= self._again_at.get(event, 0.0)

    def _ask_weights(self, event: Revealed) -> None:
        name = f"fetch what {event.miner} revealed in round {self.number}"
        self._ask(name, event, self._examine, self._found)

    def _ask(
        self,
        name: str,
        event: Revealed,
        look: Callable[[Revealed, Store], Result],
        results: dict[Revealed, Result],
    ) -> None:
        self.errands.fetch(name, lambda: self._look(event, look, results))

    def _make_room(self) -> None:
        """Break off the slowest where there are so many that others would have to wait for them."""
        fetching = [(self._begun.get(event, 0.0), event) for event in list(self._under_way)]
        slow = [(begun, event) for begun, event in fetching if self._slow(event)]
        if len(fetching) >= _CROWD and slow:
            _, first = min(slow, key=lambda one: one[0])
            self._under_way.get(first, threading.Event()).set()

    def _forget_start(self, event: Revealed) -> None:
        self._begun.pop(event, None)
        self._since.pop(event, None)

    def _slow(self, event: Revealed) -> bool:
        """Whether its fetch has been under way for so long that others need not wait for it."""
        begun = self._begun.get(event)
        if begun is None or event in self._found or event in self._linked:
            return False
        return time.monotonic() - begun >= _SLOW_SECONDS

    def found(self, event: Revealed) -> Judged | Path | None:
        """The finding where the manifest is at fault, else the weights; None until fetched."""
        return self._found.get(event)

    def drop(self, event: Revealed) -> None:
        """Delete what was fetched of a judged model and is not kept."""
        self._found.pop(event, None)
        shutil.rmtree(self._folder(event), ignore_errors=True)

    def _look(
        self,
        event: Revealed,
        look: Callable[[Revealed, Store], Result],
        results: dict[Revealed, Result],
    ) -> None:
        stop = self._under_way[event] = threading.Event()
        # Not when it was asked for: that this machine has a lot to do is no fault of the miner's.
        self._begun.setdefault(event, time.monotonic())
        self._since.setdefault(event, self.patience.now)
        try:
            self._check_time()
            store = self.setup.store
            results[event] = look(event, store.until(stop) if isinstance(store, Mirrors) else store)
        except PouwError as error:
            if not isinstance(error, ContentError) or of_machine(error):
                self._forget_start(event)  # this machine's trouble: nobody was slow
                raise
            attempts = 1 + (self.missing[event].attempts if event in self.missing else 0)
            pause = min(RETRY_SECONDS * attempts, _LONGEST_PAUSE_SECONDS)
            self._again_at[event] = time.monotonic() + pause
            broken_off = stop.is_set()
            answer = "it was slow, and broken off for others" if broken_off else str(error)
            self.missing[event] = Missing(attempts, answer, self.patience.now, broken_off)
            raise
        finally:
            self._under_way.pop(event, None)
        self.missing.pop(event, None)

    def _check_time(self) -> None:
        if self._over:
            raise ContentError(f"round {self.number} has moved on")

    def _examine(self, event: Revealed, store: Store) -> Judged | Path:
        """The finding on the manifest, or the weights where it is as it should be."""
        manifest = judge_manifest(store, event, self.task, self.number, self.spec)
        if isinstance(manifest, Judged):
            return manifest
        claim = Claim(self.number, event.miner, self.spec, manifest, event.manifest_digest)
        model = self._folder(event) / MODEL_FILE
        fault = self._recipe_fault(claim)
        try:
            if fault is None:
                fetch(store, manifest.model.cid, manifest.model.bytes, model)
        except (ContentMismatch, ContentTooLarge) as error:
            fault = str(error)
        if fault is not None:
            return judged_score(event, None, "manifest", fault, ())
        store.put_file(model)
        self._keep(claim, files_of(manifest)[-1:])
        return model

    def _recipe_fault(self, claim: Claim) -> str | None:
        if self.spec.provenance.policy == "none":
            return None
        return recipe_fault(claim, self.data_key)

    def _check(self, event: Revealed, store: Store) -> str:
        """What is wrong with the checkpoints, or ""; then they are kept."""
        manifest = fetch_manifest(store, event.manifest_digest)
        claim = Claim(self.number, event.miner, self.spec, manifest, event.manifest_digest)
        folder = self._folder(event)
        try:
            self._check_room(claim, folder)
            fault = self.provenance.fault(claim, self.data_key, folder, store)
        except (ContentMismatch, ContentTooLarge) as error:
            fault = str(error)
        except ContentError as error:
            if of_machine(error):
                shutil.rmtree(folder, ignore_errors=True)  # a full disk stays full otherwise
            raise
        if fault is None:
            here = {each.cid: checkpoint_path(folder, each) for each in manifest.checkpoints}
            self._keep(claim, files_of(manifest), here)
        return fault or ""

    def _check_room(self, claim: Claim, folder: Path) -> None:
        """ContentError, of this machine, where the disk has no room for the checkpoints."""
        wanted = sum(each.bytes for each in claim.manifest.checkpoints)
        there = sum(path.stat().st_size for path in folder.glob("*"))
        free = shutil.disk_usage(self.setup.home).free
        if wanted - there > free:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise ContentError(
                f"the checkpoints that {claim.miner} revealed have {wanted} bytes, "
                f"{free} are free on the disk of {self.setup.home}",
                hint="make room: this oracle cannot vote otherwise",
            ) from full

    def _keep(
        self, claim: Claim, files: tuple[tuple[str, int], ...], here: dict[str, Path] | None = None
    ) -> None:
        """From here on they are served from here too, until the round is closed."""
        self._check_time()
        self.keeper.keep(self.number, claim.miner, self.spec, files, claim.manifest_digest, here)

    def _folder(self, event: Revealed) -> Path:
        # Somebody else may have revealed the same manifest: what is his is not deleted with it.
        name = f"{event.miner}-{event.manifest_digest.hex()}"
        return self.setup.home / "models" / str(self.number) / name
