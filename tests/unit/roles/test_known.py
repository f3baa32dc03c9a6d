"""A publisher is told before it hides what an earlier task of its own shows to everybody."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from one_round import ETHER, PARAMETERS
from tiny_task import write_case, write_tiny_set

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.errors import ConfigError
from pouw.hashing import data_key_of
from pouw.journal import Journal
from pouw.roles.base import Setup
from pouw.roles.drafts import Drafts
from pouw.roles.publisher import Publisher, PublishRequest
from pouw.storage.local import LocalStore
from pouw.types import TaskId

KNOWN = "known to miners with their labels"


class World:
    """A publisher with a folder of labelled images and an arena."""

    def __init__(self, endpoint: Endpoint, home: Path, journal: Journal) -> None:
        self.endpoint, self.home, self.journal = endpoint, home, journal
        self.arena: ArenaClient = deploy(Sender(endpoint, dev_account(0)), PARAMETERS)
        setup = Setup(self.arena, LocalStore(home / "s"), home, journal, 1, 0, lambda _: None)
        self.publisher = Publisher(setup, inline=True)
        self.folder = write_tiny_set(home / "scans", train=5, test=0)

    def publish(self, folder: Path | None = None, **changes: object) -> TaskId:
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
        return self.publisher.publish(replace(request, **changes))

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


@pytest.fixture
def world(anvil_url: str, tmp_path: Path) -> Iterator[World]:
    endpoint = Endpoint.connect(anvil_url)
    with Journal(tmp_path / "journal.sqlite") as journal:
        made = World(endpoint, tmp_path, journal)
        yield made
        made.publisher.close()
    endpoint.close()


@pytest.mark.parametrize("changes", [{}, {"again": True}, {"licence": "other", "title": "more"}])
def test_publish__images_of_a_round_that_is_over__is_refused(
    world: World, changes: dict[str, object]
) -> None:
    world.publish()
    world.play()
    with pytest.raises(ConfigError, match=f"5 of these images are {KNOWN}.* task 1") as caught:
        world.publish(**changes)
    assert caught.value.hint is not None
    assert "imagesTs" in caught.value.hint
    assert "--miners-may-know-the-test-set" in caught.value.hint
    assert world.arena.state().tasks == 1
    assert world.publish(**changes, test_set_may_be_known=True) == 2


def test_publish__images_of_a_task_that_waits__is_refused_also_again(world: World) -> None:
    world.publish()
    with pytest.raises(ConfigError, match=KNOWN):
        world.publish(again=True)


def test_publish__some_images_of_a_copied_folder_are_known__is_refused(world: World) -> None:
    world.publish()
    world.release()
    folder = world.fresh("others")
    for kind, end in (("images", "_0000"), ("labels", "")):
        shutil.copy(
            world.folder / f"{kind}Tr/train0{end}.nii.gz", folder / f"{kind}Tr/x{end}.nii.gz"
        )
    with pytest.raises(ConfigError, match="1 of these images are"):
        world.publish(folder)


def test_publish__known_images_to_train_on_and_new_ones_to_hide__is_published(
    world: World,
) -> None:
    world.publish()
    world.play()
    assert world.publish(world.with_new_test_set(world.folder)) == 2


def test_publish__cancelled_before_it_was_selected__the_images_are_still_secret(
    world: World,
) -> None:
    world.publish()
    folder = world.fresh("others")
    world.arena.cancel(world.publish(folder))
    assert world.publish(folder) == 3


@pytest.mark.parametrize("sent", [False, True])
def test_publish__dropped__is_refused_only_where_its_key_may_have_left(
    world: World, sent: bool
) -> None:
    world.publish()
    if sent:
        (draft,) = Drafts(world.journal).all()
        Drafts(world.journal).mark_key_sent(draft)
    world.wait(PARAMETERS.phase2 + PARAMETERS.key_window)
    world.arena.sync()
    if sent:
        with pytest.raises(ConfigError, match="a task whose data key was sent"):
            world.publish()
    else:
        assert world.publish() == 2


def test_release__data_key__is_noted_before_it_leaves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish()
    (draft,) = Drafts(world.journal).all()
    assert not draft.key_sent
    noted = []

    def look(_: ArenaClient, key: bytes) -> None:
        noted.extend(one.key_sent for one in Drafts(world.journal).all())
        assert key == data_key_of(draft.test_key)

    monkeypatch.setattr(ArenaClient, "release_data_key", look)
    world.release()
    assert noted == [True]


def test_publish__draft_of_an_older_release__its_folder_decides(world: World) -> None:
    world.publish()
    world.play()
    (draft,) = Drafts(world.journal).all()
    world.journal.delete("images", draft.digest.hex())
    with pytest.raises(ConfigError, match="the images of this folder are known"):
        world.publish(licence="other")
    elsewhere = write_tiny_set(world.home / "elsewhere", train=5, test=0)
    assert world.publish(elsewhere, licence="other") == 2
