"""Two publications of one home: one after the other, and no key is lost between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from publishing import World, published_to

from pouw.errors import ConfigError
from pouw.journal import Journal
from pouw.roles.drafts import Draft, Drafts

SEALED = Draft(b"d" * 32, b"\x07" * 32, "t", request="r", folder="/x", sealed_at=1, sent=False)


@pytest.fixture
def world(anvil_url: str, tmp_path: Path) -> Iterator[World]:
    with published_to(anvil_url, tmp_path) as made:
        yield made


@pytest.mark.parametrize("stage", ["compare", "seal train", "publish"])
def test_publish__another_publishes_from_the_same_home__is_refused_and_paid_once(
    world: World, stage: str
) -> None:
    refusals: list[ConfigError] = []

    def meanwhile(now: str, _done: int, _total: int) -> None:
        if now == stage and not refusals:
            with pytest.raises(ConfigError, match=f"process {os.getpid()} publishes") as caught:
                world.publish(again=True)
            refusals.append(caught.value)

    assert world.publish(progress=meanwhile) == 1

    assert refusals
    assert world.arena.state().tasks == 1
    assert world.publish(world.fresh("others")) == 2


def test_discard__sent_since_it_was_read__keeps_the_key(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as one, Journal(tmp_path / "j") as two:
        Drafts(one).add(SEALED, ("i",))
        (stale,) = Drafts(two).unfinished()
        Drafts(one).mark_sent(stale)
        assert not Drafts(two).discard(stale)
        (kept,) = Drafts(one).all()
    assert (kept.test_key, kept.sent) == (SEALED.test_key, True)


def test_discard__never_sent__forgets_key_and_images(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        drafts = Drafts(journal)
        drafts.add(SEALED, ("i",))
        assert drafts.discard(SEALED)
        assert not drafts.discard(SEALED)
        assert drafts.all() == []
        assert drafts.images(SEALED) is None
