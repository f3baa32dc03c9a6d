"""What is kept for others, and when it is let go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tiny_task import tiny_spec

from pouw.errors import ContentMismatch, ContentNotFound
from pouw.events import RoundClosed
from pouw.hashing import raw_cid, sha256
from pouw.journal import Journal
from pouw.roles.base import Errands, Setup
from pouw.roles.feed import Feed
from pouw.roles.keeping import DAY_SECONDS, Keeper, hold
from pouw.storage.block import LEAF_BYTES, cid_of_bytes
from pouw.storage.local import LocalStore
from pouw.types import Address, RoundNumber, Verdict

ROUND = RoundNumber(3)
CLOSED_AT = 1_800_000_000
WINNER, LOSER, OTHER = (Address(f"0x{digit * 40}") for digit in "123")
NOBODY: Any = None  # no chain is asked


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        store = LocalStore(tmp_path / "store")
        yield Setup(NOBODY, store, tmp_path, journal, 1, 0, lambda notice: None)


@pytest.fixture
def keeper(setup: Setup) -> Iterator[Keeper]:
    errands = Errands(setup, inline=True)
    yield Keeper(setup, errands)
    errands.close()


@pytest.fixture
def feed() -> Feed:
    return Feed(NOBODY, 0, 1)


def close_round(feed: Feed, winner: Address) -> None:
    feed.round(ROUND).closed = RoundClosed(
        **dict.fromkeys(RoundClosed.__struct_fields__, 0)
        | {
            "round": ROUND,
            "verdict": Verdict.WINNER,
            "winner": winner,
            "closed_at": CLOSED_AT,
        }
    )


def keep(keeper: Keeper, miner: Address, content: bytes) -> set[str]:
    """Keep a file with that content and a document of the miner's own; their CIDs."""
    store, document = keeper.setup.store, miner.encode()
    cid, manifest = store.put_bytes(content), store.put_bytes(document)
    keeper.keep(ROUND, miner, tiny_spec(retention_days=30), [(cid, len(content))], sha256(document))
    assert manifest == raw_cid(sha256(document))
    return {cid, manifest}


def test_tend__retention_over__lets_losers_go_and_never_the_winner(
    keeper: Keeper, feed: Feed
) -> None:
    won = keep(keeper, WINNER, b"the best")
    lost = keep(keeper, LOSER, b"another")
    store = keeper.setup.store

    keeper.tend(feed, CLOSED_AT + 40 * DAY_SECONDS)
    assert store.pins() == won | lost, "the round is not closed"
    close_round(feed, WINNER)
    keeper.tend(feed, CLOSED_AT + 30 * DAY_SECONDS - 1)
    assert store.pins() == won | lost, "the retention is not over"
    keeper.tend(feed, CLOSED_AT + 30 * DAY_SECONDS)
    assert store.pins() == won
    keeper.tend(feed, CLOSED_AT + 400 * DAY_SECONDS)
    assert store.pins() == won


def test_tend__same_file_of_winner_and_loser__stays(keeper: Keeper, feed: Feed) -> None:
    won = keep(keeper, WINNER, b"the same")
    keep(keeper, LOSER, b"the same")
    close_round(feed, WINNER)
    keeper.tend(feed, CLOSED_AT + 30 * DAY_SECONDS)
    assert keeper.setup.store.pins() == won


def test_keep__content_gone__is_known_to_the_journal_and_pinned_the_next_time(
    keeper: Keeper, setup: Setup
) -> None:
    spec = tiny_spec()
    gone = cid_of_bytes(b"gone")
    document = setup.store.put_bytes(b"document")
    for _ in range(2):
        with pytest.raises(ContentNotFound):
            keeper.keep(ROUND, OTHER, spec, [(gone, 4)], sha256(b"document"))
    assert not setup.store.pins()
    setup.store.put_bytes(b"gone")
    keeper.keep(ROUND, OTHER, spec, [(gone, 4)], sha256(b"document"))
    assert setup.store.pins() == {gone, document}


def test_tend__loser_named_what_was_pinned_before__stays(keeper: Keeper, feed: Feed) -> None:
    store = keeper.setup.store
    evidence = store.put_bytes(b"evidence of an earlier round")
    store.pin(evidence)
    for _ in range(2):  # as after a restart
        lost = keep(keeper, LOSER, b"evidence of an earlier round")
    assert store.pins() == lost
    close_round(feed, WINNER)
    keeper.tend(feed, CLOSED_AT + 30 * DAY_SECONDS)
    assert store.pins() == {evidence}


def test_tend__loser_named_what_was_pinned_later__stays(keeper: Keeper, feed: Feed) -> None:
    store, evidence = keeper.setup.store, cid_of_bytes(b"evidence, foreseen")
    store.put_bytes(b"document")
    named = (ROUND, LOSER, tiny_spec(retention_days=30), [(evidence, 18)], sha256(b"document"))
    with pytest.raises(ContentNotFound):
        keeper.keep(*named)
    store.pin(store.put_bytes(b"evidence, foreseen"))
    keeper.keep(*named)
    close_round(feed, WINNER)
    keeper.tend(feed, CLOSED_AT + 30 * DAY_SECONDS)
    assert store.pins() == {evidence}


def test_tend__same_file_of_two_losers__is_let_go_with_the_last(keeper: Keeper, feed: Feed) -> None:
    keep(keeper, LOSER, b"the same")
    for _ in range(2):  # as after a restart
        keep(keeper, OTHER, b"the same")
    close_round(feed, WINNER)
    keeper.tend(feed, CLOSED_AT + 30 * DAY_SECONDS)
    assert not keeper.setup.store.pins()


@pytest.mark.parametrize("size", [5, LEAF_BYTES + 5])
def test_hold__other_size_declared__is_refused_and_not_pinned(tmp_path: Path, size: int) -> None:
    store = LocalStore(tmp_path / "store")
    (tmp_path / "file").write_bytes(Random(1).randbytes(size))
    stored = store.put_file(tmp_path / "file")
    for declared in (size - 1, size + 1):
        with pytest.raises(ContentMismatch, match="declared"):
            hold(store, stored.cid, declared)
    assert not store.pins()
    hold(store, stored.cid, size)
    assert store.pins() == {stored.cid}
