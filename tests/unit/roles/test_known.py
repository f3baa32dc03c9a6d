"""A publisher is told before it hides what an earlier task of its own shows to everybody."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from one_round import PARAMETERS
from publishing import World, published_to
from tiny_task import write_tiny_set

from pouw.chain.arena import ArenaClient
from pouw.errors import ConfigError
from pouw.hashing import data_key_of
from pouw.roles.drafts import Drafts

KNOWN = "known to miners with their labels"


@pytest.fixture
def world(anvil_url: str, tmp_path: Path) -> Iterator[World]:
    with published_to(anvil_url, tmp_path) as made:
        yield made


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
