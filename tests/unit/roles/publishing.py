"""A publisher with a folder of labelled images, its home, and an arena of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from one_round import ETHER, PARAMETERS
from tiny_task import write_case, write_tiny_set

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.journal import Journal
from pouw.roles.base import Setup
from pouw.roles.publisher import Progress, Publisher, PublishRequest
from pouw.storage.local import LocalStore
from pouw.types import TaskId


class World:
    """A publisher with a folder of labelled images and an arena."""

    def __init__(self, endpoint: Endpoint, home: Path, journal: Journal) -> None:
        self.endpoint, self.home, self.journal = endpoint, home, journal
        self.arena: ArenaClient = deploy(Sender(endpoint, dev_account(0)), PARAMETERS)
        store = LocalStore(home / "s")
        self.setup = Setup(self.arena, store, home, journal, 1, 0, lambda _: None)
        self.publisher = Publisher(self.setup, inline=True)
        self.folder = write_tiny_set(home / "scans", train=5, test=0)

    def publish(
        self, folder: Path | None = None, progress: Progress | None = None, **changes: object
    ) -> TaskId:
        request = PublishRequest(
            folder=folder or self.folder,
            title="boxes",
            spatial_dims=2,
            reward_wei=ETHER,
            min_score_ppm=500_000,
            training_seconds=60,
            modality=None,
            licence="CC0",
            citation="none",
            data_will_be_public=True,
        )
        return self.publisher.publish(replace(request, **changes), progress)

    def wait(self, seconds: int) -> None:
        self.endpoint.request("evm_increaseTime", seconds)
        self.endpoint.request("evm_mine")

    def release(self) -> None:
        """The data key of the selected task, by the role itself."""
        self.wait(PARAMETERS.phase2)
        assert self.publisher.run_once().doing == "release the data key"

    def play(self) -> None:
        """The selected task's round to its end, without a miner."""
        self.release()
        self.wait(PARAMETERS.phase1)
        assert self.publisher.run_once().doing == "open the test set"
        self.wait(PARAMETERS.phase2)
        assert self.publisher.run_once().doing == "close the round"

    def fresh(self, name: str) -> Path:
        """A folder of four labelled images that nobody has seen."""
        folder = self.home / name
        random = np.random.Generator(np.random.Philox(12))
        for number in range(4):
            write_case(folder, "Tr", f"fresh{number}", random)
        shutil.copy(self.folder / "dataset.json", folder)
        return folder

    def with_new_test_set(self, images_of: Path) -> Path:
        """The same training images, beside labelled test images that nobody has seen."""
        folder = Path(shutil.copytree(images_of, self.home / "renewed"))
        random = np.random.Generator(np.random.Philox(11))
        for number in range(2):
            write_case(folder, "Ts", f"new{number}", random)
        return folder


@contextmanager
def published_to(url: str, home: Path) -> Iterator[World]:
    """A world on the chain at ``url``."""
    endpoint = Endpoint.connect(url)
    with Journal(home / "journal.sqlite") as journal:
        world = World(endpoint, home, journal)
        yield world
        world.publisher.close()
    endpoint.close()
