"""Revealed models on their way to be scored: the next is fetched while one is being scored."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pouw.documents import Judged, TaskSpec
from pouw.errors import ContentError, ContentMismatch, ContentTooLarge, PouwError
from pouw.events import Revealed
from pouw.files import of_machine
from pouw.roles.base import RETRY_SECONDS, Errands, Setup
from pouw.roles.evidence import judge_manifest, judged_score
from pouw.roles.keeping import Keeper, files_of
from pouw.roles.provenance import MODEL_FILE, Claim, Provenance, checkpoint_path, fetch
from pouw.types import RoundNumber, Task

_AHEAD = 2  # candidates fetched and not judged: the one that is scored, and the next
_SLOW_SECONDS = 60.0  # after which a fetch keeps no other one waiting
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Missing:
    """Content that could not be had: how often it was tried, and what was answered last."""

    attempts: int
    answer: str

    def __str__(self) -> str:
        return f"not to be had in {self.attempts} attempt(s) until now; the last: {self.answer}"


@dataclass(slots=True)
class Candidates:
    """Manifests and weights of one round, fetched in rank order and checked against their CIDs.

    The checkpoints are checked link by link where the spec asks for provenance. What is fetched
    lies in a folder of the claim until all of it is as it should be; only then is it kept, so
    nothing has to be let go, or could be by mistake, where it is not.

    Fetches run as errands, several beside each other where one is slow: a miner that serves a byte
    now and then must not keep the reveals below waiting. ``missing`` holds the reveals whose
    content no place has (yet); they are asked for again once all others were, ever more rarely.
    """

    setup: Setup
    errands: Errands
    number: RoundNumber
    task: Task
    spec: TaskSpec
    provenance: Provenance
    data_key: bytes
    keeper: Keeper
    missing: dict[Revealed, Missing] = field(default_factory=dict)
    _found: dict[Revealed, Judged | Path] = field(default_factory=dict)
    _begun: dict[Revealed, float] = field(default_factory=dict)
    _again_at: dict[Revealed, float] = field(default_factory=dict)

    def fetch(self, ranked: Iterable[Revealed]) -> None:
        """Ask for the first of ``ranked`` (none of them judged yet) that are not here."""
        ahead, missing = 0, []
        for event in ranked:
            if event in self.missing:
                missing.append(event)
                continue
            if event not in self._found:
                self._ask(event)
            # What is slow must not keep the ones below it waiting.
            ahead += not self._slow(event)
            if ahead == _AHEAD:
                return
        now = time.monotonic()
        for event in missing:
            if now >= self._again_at.get(event, 0.0):
                self._ask(event)

    def given_up(self, event: Revealed) -> Missing | None:
        """What to say of content that is not here although it was asked for in good time."""
        if event in self.missing:
            return self.missing[event]
        if event in self._found or not self._slow(event):
            return None
        return Missing(1, f"it was still arriving after {_SLOW_SECONDS:.0f} s")

    def _ask(self, event: Revealed) -> None:
        name = f"fetch what {event.miner} revealed in round {self.number}"
        self._begun.setdefault(event, time.monotonic())
        self.errands.fetch(name, self._fetching(event))

    def _slow(self, event: Revealed) -> bool:
        """Whether its fetch has been under way for so long that others need not wait for it."""
        begun = self._begun.get(event)
        if begun is None or event in self._found:
            return False
        return time.monotonic() - begun >= _SLOW_SECONDS

    def found(self, event: Revealed) -> Judged | Path | None:
        """The finding where the manifest is at fault, else the weights; None until fetched."""
        return self._found.get(event)

    def drop(self, event: Revealed) -> None:
        """Delete what was fetched of a judged model and is not kept."""
        self._found.pop(event, None)
        self._delete(event)

    def _fetching(self, event: Revealed) -> Callable[[], None]:
        def fetch() -> None:
            try:
                self._found[event] = self._examine(event)
            except PouwError as error:
                if not isinstance(error, ContentError) or of_machine(error):
                    self._begun.pop(event, None)  # this machine's trouble: nobody was slow
                    raise
                attempts = 1 + (self.missing[event].attempts if event in self.missing else 0)
                pause = min(RETRY_SECONDS * attempts, _LONGEST_PAUSE_SECONDS)
                self._again_at[event] = time.monotonic() + pause
                self.missing[event] = Missing(attempts, str(error))
                raise
            self.missing.pop(event, None)

        return fetch

    def _examine(self, event: Revealed) -> Judged | Path:
        """The finding on manifest and checkpoints, or the weights where they are as they should."""
        store = self.setup.store
        manifest = judge_manifest(store, event, self.task, self.number, self.spec)
        if isinstance(manifest, Judged):
            return manifest
        claim = Claim(self.number, event.miner, self.spec, manifest, event.manifest_digest)
        folder = self._folder(event)
        model = folder / MODEL_FILE
        try:
            fault = self.provenance.fault(claim, self.data_key, folder)
            if fault is None:
                fetch(store, manifest.model.cid, manifest.model.bytes, model)
        except (ContentMismatch, ContentTooLarge) as error:
            fault = str(error)
        if fault is not None:
            self._delete(event)
            return judged_score(event, None, "manifest", fault, ())
        self._keep(claim, folder)
        return model

    def _keep(self, claim: Claim, folder: Path) -> None:
        """From here on it is served from here too, until the round is closed."""
        manifest = claim.manifest
        files, here = files_of(manifest), dict[str, Path]()
        if self.spec.provenance.policy == "none":
            files = files[-1:]
        else:
            here = {each.cid: checkpoint_path(folder, each) for each in manifest.checkpoints}
        self.setup.store.put_file(folder / MODEL_FILE)
        self.keeper.keep(self.number, claim.miner, self.spec, files, claim.manifest_digest, here)

    def _folder(self, event: Revealed) -> Path:
        # Somebody else may have revealed the same manifest: what is his is not deleted with it.
        name = f"{event.miner}-{event.manifest_digest.hex()}"
        return self.setup.home / "models" / str(self.number) / name

    def _delete(self, event: Revealed) -> None:
        shutil.rmtree(self._folder(event), ignore_errors=True)
