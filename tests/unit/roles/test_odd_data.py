"""A miner trains and commits whatever validation can make of the task's data, on anvil."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from one_round import LATER, PARAMETERS, PUBLISHER, ROUND, TEST_KEY, Stage
from tiny_task import tiny_spec, write_tiny_set

from pouw.archive import pack
from pouw.chain.rpc import Endpoint
from pouw.documents import Archive
from pouw.hashing import data_key_of
from pouw.journal import Journal
from pouw.roles.base import Setup
from pouw.roles.miner import Miner, MinerOptions
from pouw.sealing import Sealing
from pouw.storage.local import LocalStore
from pouw.types import EntryState

PATIENCE_SECONDS = 90.0


def _no_foreground(labels: Path) -> None:
    for path in labels.iterdir():
        empty = np.zeros(nibabel.load(path).shape, np.uint8)
        nibabel.save(nibabel.Nifti1Image(empty, np.eye(4)), path)


def _as_they_are(_labels: Path) -> None: ...


@pytest.mark.parametrize(
    ("cases", "change"),
    [(4, _no_foreground), (2, _as_they_are), (2, _no_foreground)],
    ids=["no foreground", "one case to train on and one to validate", "both"],
)
def test_miner__validation_says_little__trains_and_commits(
    anvil_url: str, tmp_path: Path, cases: int, change: Callable[[Path], None]
) -> None:
    endpoint, store = Endpoint.connect(anvil_url), LocalStore(tmp_path / "store")
    folder = write_tiny_set(tmp_path / "data", cases, 0)
    change(folder / "labelsTr")
    pack(folder, tmp_path / "data.tar")
    with Sealing(tmp_path / "data.tar", data_key_of(TEST_KEY)) as sealing:
        kept = store.put_leaves(sealing)
    spec = tiny_spec(train=Archive(cid=kept.cid, bytes=kept.bytes, cases=cases))
    store.put_bytes(spec.encode())
    stage = Stage(endpoint, spec.digest())
    stage.wait(PARAMETERS.phase2)
    stage.clients[PUBLISHER].release_data_key(data_key_of(TEST_KEY))
    arena = stage.clients[LATER]
    with Journal(tmp_path / "journal.sqlite") as journal:
        setup = Setup(arena, store, tmp_path / "home", journal, 1, 0, print)
        options = MinerOptions(device="cpu", trial=False, max_steps=5)
        miner = Miner(setup, options, inline=True)
        try:
            until = time.monotonic() + PATIENCE_SECONDS
            while arena.entry(ROUND, arena.sender.address).state is not EntryState.COMMITTED:
                assert time.monotonic() < until
                miner.run_once()
                time.sleep(0.1)
        finally:
            miner.close()
    endpoint.close()
