"""The submitting half of a miner: commitments, reveals and bonds.

Models and manifests stay in a private store, whose CIDs need no network, until the reveal. The
salt and the manifest's digest are in the journal before the commitment leaves, one record for each
commitment ever sent, so whichever the chain holds can be opened. A manifest's salt stays the same:
its commitment, asked for again, is the same transaction.
"""

from __future__ import annotations

import functools
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pouw.documents import TaskSpec
from pouw.errors import ChainUnavailable
from pouw.hashing import commitment as commitment_of
from pouw.hashing import raw_cid
from pouw.ml.requests import Snapshot
from pouw.roles.base import Errands, Setup
from pouw.roles.content import fetch_manifest
from pouw.roles.feed import Feed
from pouw.roles.keeping import Keeper, files_of
from pouw.roles.manifests import build_manifest
from pouw.roles.rounds import (
    delete_models,
    folder_of,
    is_spent,
    let_go,
    move_checkpoints,
    outdone,
    private_store,
    rounds_in,
)
from pouw.storage.local import LocalStore
from pouw.types import Address, Entry, EntryState, RoundNumber, Task

_COMMITMENTS = "commitments"
_SALTS = "salts"
_SCORES = "scores"
REVEALS = "reveals"


@dataclass(frozen=True, slots=True)
class Submission:
    """What one commitment binds: the manifest, its salt, and the step it was trained to."""

    manifest_digest: bytes
    salt: bytes
    step: int

    @classmethod
    def of(cls, record: dict[str, Any]) -> Submission:
        """What a record in the journal says."""
        return cls(
            manifest_digest=bytes.fromhex(record["manifest"]),
            salt=bytes.fromhex(record["salt"]),
            step=record["step"],
        )


class Submissions:
    """What one miner has submitted, as its journal and the chain know it."""

    def __init__(self, setup: Setup, errands: Errands) -> None:
        self._setup = setup
        self._errands = errands
        self._address: Address = setup.arena.sender.address
        self._keeper = Keeper(setup, errands)
        self._strangers = set[bytes]()

    def committed(self, number: RoundNumber) -> Submission | None:
        """What the commitment that the chain holds binds; None where it is none of ours."""
        return self._known(number, self._setup.arena.entry(number, self._address))

    def last(self, number: RoundNumber) -> Submission | None:
        """What was committed last in Phase 1; None where nothing was, or it was taken back.

        The latest that was included stands, though one node behind an endpoint may not know its
        block yet, or another machine's commitment with the same key is in its place.
        """
        entry = self._setup.arena.entry(number, self._address)
        included = self._included(number)
        if included and self._known(number, entry) != Submission.of(included):
            block = self._setup.arena.endpoint.block_number()
            if block < included["block"]:
                return Submission.of(included)
            try:
                entry = self._setup.arena.entry(number, self._address, block)
            except ChainUnavailable:  # of a node that has not got that block
                return Submission.of(included)
        known = self._known(number, entry)
        if known or entry.state is not EntryState.COMMITTED:
            return known
        self._warn_of_stranger(number, entry)
        return Submission.of(included) if included else None

    def model(self, number: RoundNumber, submission: Submission) -> Path | None:
        """The committed model in a file; None while it is brought, which this call asks for.

        From the private store, which verifies it: training may have gone on where it left the file.
        """
        digest = submission.manifest_digest
        path = self._private(number).directory / "committed" / f"{digest.hex()}.model"
        if not path.exists():
            name = f"bring the model of round {number}"
            self._errands.prepare(name, lambda: self._bring(number, digest, path))
        return path if path.exists() else None

    def keep(self, number: RoundNumber, spec: TaskSpec, snapshots: list[Snapshot]) -> None:
        """Take the checkpoints to the private store, so that a commitment has not to wait."""
        out = folder_of(self._setup.home, number)
        private = self._private(number) if spec.provenance.policy != "none" else None
        self._errands.prepare(
            f"keep the checkpoints of round {number}",
            lambda: move_checkpoints(private, out, snapshots),
        )

    def thin_out(self, number: RoundNumber, task: Task, snapshots: list[Snapshot]) -> None:
        """Delete the models that were not committed and never will be.

        The last snapshot may turn out damaged and be taken back: it outdoes none yet.
        """
        committed = {Submission.of(record).step for record in self._records(number)}
        delete_models(
            folder_of(self._setup.home, number),
            [one for one in outdone(snapshots[:-1], task) if one.step not in committed],
        )

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
        """Let go of what was revealed and did not win, and of closed rounds' weights here."""
        self._keeper.tend(feed, now)
        home = self._setup.home
        for number in rounds_in(home):
            settled = self._setup.journal.get(REVEALS, str(number), default=True)
            if settled and feed.round(number).closed and is_spent(home, number):
                name = f"let go of the weights of round {number}"
                self._errands.prepare(name, functools.partial(let_go, home, number))

    def _commit(
        self, number: RoundNumber, task: Task, spec: TaskSpec, out: Path, snapshot: Snapshot
    ) -> None:
        arena, private = self._setup.arena, self._private(number)
        manifest = build_manifest(private, out, spec, task, number, self._address, snapshot)
        private.put_bytes(manifest.encode())
        digest, journal = manifest.digest(), self._setup.journal
        salt = journal.put_once(_SALTS, f"{number}/{digest.hex()}", secrets.token_hex(32))
        value = commitment_of(
            arena.chain_id, arena.address, number, self._address, digest, bytes.fromhex(salt)
        )
        record = {"manifest": digest.hex(), "salt": salt, "step": snapshot.step}
        key = _key(number, value[:22])
        journal.put(_COMMITMENTS, key, record)
        receipt = arena.commit(number, value)
        journal.put(_COMMITMENTS, key, {**record, "block": receipt.block_number})
        self._setup.info(
            f"committed step {snapshot.step} in round {number}, "
            f"validation Dice {snapshot.validation_dice_ppm / 1e6:.4f}",
            round=number,
            step=snapshot.step,
        )

    def _bring(self, number: RoundNumber, manifest_digest: bytes, path: Path) -> None:
        private = self._private(number)
        model = fetch_manifest(private, manifest_digest).model
        private.get_file(model.cid, path, model.bytes)

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
        """Bring the manifest and all that it names to the public store; only now may others see."""
        private = self._private(number)
        files = files_of(fetch_manifest(private, manifest_digest))
        wanted = (*(cid for cid, _ in files), raw_cid(manifest_digest))
        self._setup.store.take(wanted, private)
        self._keeper.keep(number, self._address, spec, files, manifest_digest)

    def _known(self, number: RoundNumber, entry: Entry) -> Submission | None:
        record = self._setup.journal.get(_COMMITMENTS, _key(number, entry.digest))
        return None if record is None else Submission.of(record)

    def _included(self, number: RoundNumber) -> dict[str, Any] | None:
        """The record of the latest commitment of a round that was seen in a block."""
        seen = (record for record in self._records(number) if "block" in record)
        return max(seen, key=lambda record: int(record["block"]), default=None)

    def _records(self, number: RoundNumber) -> list[dict[str, Any]]:
        """Every commitment of a round that was ever sent."""
        items = self._setup.journal.items(_COMMITMENTS)
        return [record for key, record in items if key.startswith(_key(number, b""))]

    def _warn_of_stranger(self, number: RoundNumber, entry: Entry) -> None:
        if entry.digest not in self._strangers:
            self._strangers.add(entry.digest)
            self._setup.warn(
                f"round {number} holds a commitment of this account that is not from this home: "
                "another machine runs with the same key. Of a round's commitments only the last "
                "can be revealed, and only by the machine that made it",
                hint="stop one of the two, or give it an account of its own",
            )

    def _private(self, number: RoundNumber) -> LocalStore:
        return private_store(self._setup.home, number)

    def _reclaim(self, number: RoundNumber) -> None:
        if self._has_bond(number):
            self._setup.arena.reclaim(number, self._address)

    def _has_bond(self, number: RoundNumber) -> bool:
        entry = self._setup.arena.entry(number, self._address)
        return entry.state is EntryState.REVEALED


def _key(number: RoundNumber, digest: bytes) -> str:
    return f"{number}/{digest.hex()}"
