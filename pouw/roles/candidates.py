"""Revealed models on their way to be scored: the next is fetched while one is being scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pouw.documents import Judged, TaskSpec
from pouw.errors import ContentNotFound
from pouw.events import Revealed
from pouw.roles.base import Errands, Setup
from pouw.roles.content import fetch_manifest
from pouw.roles.evidence import judge_manifest, judged_score
from pouw.roles.provenance import Claim, Provenance
from pouw.types import RoundNumber, Task

_AHEAD = 2  # candidates fetched and not judged: the one that is scored, and the next


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
    missing: set[Revealed] = field(default_factory=set)
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
        folder = self.setup.home / "models" / str(self.number)

        def fetch() -> None:
            try:
                judged, model = judge_manifest(
                    self.setup.store, event, self.task, self.number, self.spec, folder
                )
                fault = self._link_fault(event) if judged is None else None
            except ContentNotFound:
                self.missing.add(event)
                raise
            self.missing.discard(event)
            if fault is not None:
                model.unlink(missing_ok=True)
                judged = judged_score(event, None, "manifest", fault, ())
            self._found[event] = model if judged is None else judged

        return fetch

    def _link_fault(self, event: Revealed) -> str | None:
        manifest = fetch_manifest(self.setup.store, event.manifest_digest)
        claim = Claim(self.number, event.miner, self.spec, manifest, event.manifest_digest)
        return self.provenance.fault(claim, self.data_key)
