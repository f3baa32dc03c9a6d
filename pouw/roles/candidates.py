"""Revealed models on their way to be scored: the next is fetched while one is being scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pouw.documents import Judged, Manifest, TaskSpec
from pouw.errors import ContentMismatch, ContentNotFound, ContentTooLarge
from pouw.events import Revealed
from pouw.roles.base import Errands, Setup
from pouw.roles.evidence import judge_manifest, judged_score
from pouw.roles.keeping import Keeper, files_of
from pouw.roles.provenance import Claim, Provenance, recipe_fault
from pouw.types import RoundNumber, Task

_AHEAD = 2  # candidates fetched and not judged: the one that is scored, and the next


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

    The checkpoints are checked link by link where the spec asks for provenance.

    Fetching runs as an errand; ``missing`` holds the reveals whose content no place has (yet).
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

    def fetch(self, ranked: Iterable[Revealed]) -> None:
        """Ask for the first of ``ranked`` (none of them judged yet) that are not here."""
        ahead = 0
        for event in ranked:
            if ahead == _AHEAD:
                return
            if event not in self._found:
                name = f"fetch what {event.miner} revealed in round {self.number}"
                self.errands.prepare(name, self._fetching(event))
            # What is missing must not keep the ones below it waiting.
            ahead += event not in self.missing

    def found(self, event: Revealed) -> Judged | Path | None:
        """The finding where the manifest is at fault, else the weights; None until fetched."""
        return self._found.get(event)

    def drop(self, event: Revealed) -> None:
        """Delete the weights of a judged model."""
        found = self._found.pop(event, None)
        if isinstance(found, Path):
            found.unlink(missing_ok=True)

    def _fetching(self, event: Revealed) -> Callable[[], None]:
        def fetch() -> None:
            try:
                self._found[event] = self._examine(event)
            except ContentNotFound as error:
                attempts = self.missing[event].attempts if event in self.missing else 0
                self.missing[event] = Missing(attempts + 1, str(error))
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
        model = self.setup.home / "models" / str(self.number) / f"{event.miner}.safetensors"
        try:
            fault = self._recipe_fault(claim)
            if fault is None:
                # From here on it is served from here too, until the round is closed.
                self.keeper.keep(
                    self.number,
                    event.miner,
                    self.spec,
                    self._files(manifest),
                    event.manifest_digest,
                )
                model.unlink(missing_ok=True)
                store.get_file(manifest.model.cid, model, manifest.model.bytes)
                fault = self.provenance.fault(claim, self.data_key)
        except (ContentMismatch, ContentTooLarge) as error:
            fault = str(error)
        if fault is None:
            return model
        model.unlink(missing_ok=True)
        return judged_score(event, None, "manifest", fault, ())

    def _recipe_fault(self, claim: Claim) -> str | None:
        """What speaks against the declared sizes, before anything of that size is fetched."""
        if self.spec.provenance.policy == "none":
            return None
        return recipe_fault(claim, self.data_key)

    def _files(self, manifest: Manifest) -> tuple[tuple[str, int], ...]:
        """What has to be had: checkpoints only where the spec asks for them."""
        files = files_of(manifest)
        return files[-1:] if self.spec.provenance.policy == "none" else files
