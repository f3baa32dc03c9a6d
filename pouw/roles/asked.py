"""What a publication was asked for: its options, and the content of the folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from pouw.chain.arena import ArenaClient
from pouw.ml.layout import CaseFile
from pouw.ml.readers import read_folder
from pouw.ml.split import may_be_hidden
from pouw.roles.offer import Progress, PublishRequest

# What the transaction says, where the images lie or what was agreed to; everything else goes into
# the spec.
_NOT_SEALED: Final = frozenset(
    {
        "folder",
        "reward_wei",
        "min_score_ppm",
        "first",
        "data_will_be_public",
        "proposal",
        "again",
        "test_set_may_be_known",
    }
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and what its folder held, as hexadecimal digits of sha256.

    Two publications with the same ``digest`` may share one sealed task. ``images``: of all cases
    that the task will hold, ``hidden`` of those that its test set may be made of.
    """

    digest: str
    images: tuple[str, ...]
    hidden: frozenset[str]


def asked_for(request: PublishRequest, arena: ArenaClient, say: Progress) -> Asked:
    """Read the folder; DataError where it is no data set.

    The digest covers chain, arena and account, whatever goes into the spec, and names, sizes and
    content of all files that are read from the folder.
    """
    dataset = read_folder(request.folder).dataset
    files = {path for path in dataset.root.iterdir() if path.is_file() and path.name[0] != "."}
    for case in (*dataset.train, *dataset.test):
        files.update(case.images)
        if case.label is not None:
            files.add(case.label)
    content = _content(files, say)
    proposal = request.proposal
    asked = {
        "chain_id": arena.chain_id,
        "arena": arena.address,
        "account": arena.sender.address,
        "options": {
            item.name: getattr(request, item.name)
            for item in fields(request)
            if item.name not in _NOT_SEALED
        },
        "proposal": proposal
        and [
            part.model_dump(mode="json")
            for part in (proposal.network, proposal.inference, proposal.caps)
        ],
        "files": [
            (os.path.relpath(path, dataset.root), size, digest)
            for path, (size, digest) in content.items()
        ],
    }

    def images_of(cases: tuple[CaseFile, ...]) -> set[str]:
        return {content[path][1] for case in cases for path in case.images}

    hidden = images_of(may_be_hidden(dataset))
    return Asked(
        hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest(),
        tuple(sorted(images_of(dataset.train) | hidden)),
        frozenset(hidden),
    )


def _content(files: set[Path], say: Progress) -> dict[Path, tuple[int, str]]:
    """Bytes and sha256 of every file, in the order of their paths."""
    found = {}
    for done, path in enumerate(sorted(files), start=1):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, hashlib.sha256)
            found[path] = (file.tell(), digest.hexdigest())
        say("compare", done, len(files))
    return found
