"""The submitting half of a miner: commitments, reveals and bonds.

Models and manifests stay in the private store, whose CIDs need no network, until the reveal. The
salt and the manifest's digest are in the journal before the commitment leaves, one record for each
commitment ever sent, so whichever the chain holds can be opened.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from pouw.documents import TaskSpec
from pouw.hashing import commitment as commitment_of
from pouw.hashing import raw_cid
from pouw.ml.requests import Snapshot
from pouw.roles.base import Errands, Setup
from pouw.roles.content import fetch_manifest
from pouw.roles.feed import Feed
from pouw.roles.keeping import Keeper, files_of
from pouw.roles.manifests import build_manifest
from pouw.storage.local import LocalStore
from pouw.storage.store import copy
from pouw.types import Address, EntryState, RoundNumber, Task

_COMMITMENTS = "commitments"
_SCORES = "scores"
REVEALS = "reveals"


@dataclass(frozen=True, slots=True)
class Submission:
    """What one commitment binds: the manifest, its salt, and the step it was trained to."""

    manifest_digest: bytes
    salt: bytes
    step: int


class Submissions:
    """What one miner has submitted, as its journal and the chain know it."""

    def __init__(self, setup: Setup, errands: Errands) -> None:
        self._setup = setup
        self._errands = errands
        self._address: Address = setup.arena.sender.address
        self._private = LocalStore(setup.home / "content")
        self._keeper = Keeper(setup, errands)

    def committed(self, number: RoundNumber) -> Submission | None:
        """What the commitment that the chain holds binds; None where it is none of ours."""
        digest = self._setup.arena.entry(number, self._address).digest
        record = self._setup.journal.get(_COMMITMENTS, f"{number}/{digest.hex()}")
        if record is None:
            return None
        return Submission(
            manifest_digest=bytes.fromhex(record["manifest"]),
            salt=bytes.fromhex(record["salt"]),
            step=record["step"],
        )

    def model(self, number: RoundNumber, submission: Submission) -> Path | None:
        """The committed model in a file; None while it is brought, which this call asks for.

        From the private store, which verifies it: training may have gone on where it left the file.
        """
        digest = submission.manifest_digest
        path = self._setup.home / "rounds" / str(number) / "committed" / f"{digest.hex()}.model"
        if not path.exists():
            name = f"bring the model of round {number}"
            self._errands.prepare(name, lambda: self._bring(digest, path))
        return path if path.exists() else None

    def commit(
        self, number: RoundNumber, task: Task, spec: TaskSpec, out: Path, snapshot: Snapshot
    ) -> None:
        """Commit to a snapshot, or overwrite the commitment with it."""
        name = f"commit step {snapshot.step} in round {number}"
        self._errands.send(name, lambda: self._commit(number, task, spec, out, snapshot))

    def score(self, number: RoundNumber) -> int | None:
        """What this machine measured for its commitment on the opened test set, in ppm."""
        value: int | None = self._setup.journal.get(_SCORES, str(number))
        return value

    def record_score(self, number: RoundNumber, score_ppm: int) -> None:
        """Keep what was measured."""
        self._setup.journal.put(_SCORES, str(number), score_ppm)

    def reveal(
        self, number: RoundNumber, spec: TaskSpec, submission: Submission, claim_ppm: int
    ) -> None:
        """Make the content public and open the commitment."""
        self._errands.send(
            f"reveal in round {number}", lambda: self._reveal(number, spec, submission, claim_ppm)
        )

    def unsettled(self, feed: Feed, live: RoundNumber | None) -> list[RoundNumber]:
        """Closed rounds whose bond lies in the arena.

        None is done before confirmed blocks say so: a reorganisation may bring the bond back.
        """
        found = list[RoundNumber]()
        for key, settled in self._setup.journal.items(REVEALS):
            number = RoundNumber(int(key))
            if settled or number == live:
                continue
            events = feed.round(number)
            owed = self._address in events.reveals and self._address not in events.reclaimed
            if events.closed and not owed:
                self._setup.journal.put(REVEALS, key, True)
            elif self._has_bond(number):
                found.append(number)
        return found

    def reclaim(self, number: RoundNumber) -> None:
        """Settle the bond of a closed round."""
        self._errands.send(f"reclaim the bond of round {number}", lambda: self._reclaim(number))

    def tend(self, feed: Feed, now: int) -> None:
        """Let go of what was revealed and did not win, once its time is over."""
        self._keeper.tend(feed, now)

    def _commit(
        self, number: RoundNumber, task: Task, spec: TaskSpec, out: Path, snapshot: Snapshot
    ) -> None:
        arena = self._setup.arena
        manifest = build_manifest(self._private, out, spec, task, number, self._address, snapshot)
        self._private.put_bytes(manifest.encode())
        digest, salt = manifest.digest(), secrets.token_bytes(32)
        value = commitment_of(arena.chain_id, arena.address, number, self._address, digest, salt)
        self._setup.journal.put(
            _COMMITMENTS,
            f"{number}/{value[:22].hex()}",
            {"manifest": digest.hex(), "salt": salt.hex(), "step": snapshot.step},
        )
        arena.commit(number, value)
        self._setup.info(
            f"committed step {snapshot.step} in round {number}, "
            f"validation Dice {snapshot.validation_dice_ppm / 1e6:.4f}",
            round=number,
            step=snapshot.step,
        )

    def _bring(self, manifest_digest: bytes, path: Path) -> None:
        model = fetch_manifest(self._private, manifest_digest).model
        self._private.get_file(model.cid, path, model.bytes)

    def _reveal(
        self, number: RoundNumber, spec: TaskSpec, submission: Submission, claim_ppm: int
    ) -> None:
        self._serve(number, spec, submission.manifest_digest)
        self._setup.journal.put(REVEALS, str(number), False)
        self._setup.arena.reveal(number, submission.manifest_digest, claim_ppm, submission.salt)
        self._setup.info(
            f"revealed in round {number}, claim {claim_ppm / 1e6:.4f}",
            round=number,
            claim_ppm=claim_ppm,
        )

    def _serve(self, number: RoundNumber, spec: TaskSpec, manifest_digest: bytes) -> None:
        """Copy the manifest and all that it names to the public store; only now may others see."""
        files = files_of(fetch_manifest(self._private, manifest_digest))
        for cid in (*(cid for cid, _ in files), raw_cid(manifest_digest)):
            copy(cid, self._private, self._setup.store)
        self._keeper.keep(number, self._address, spec, files, manifest_digest)

    def _reclaim(self, number: RoundNumber) -> None:
        if self._has_bond(number):
            self._setup.arena.reclaim(number, self._address)

    def _has_bond(self, number: RoundNumber) -> bool:
        entry = self._setup.arena.entry(number, self._address)
        return entry.state is EntryState.REVEALED
