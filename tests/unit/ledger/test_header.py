from __future__ import annotations

from dataclasses import replace

import pytest
from ledger_stage import ALICE, BOB, PARAMETERS, Stage

from pouw.errors import LedgerError
from pouw.hashing import header_hash
from pouw.ledger.header import link, rebuild, unfinished_tasks, verify_chain, verify_headers
from pouw.ledger.history import History, Rule
from pouw.types import Header


@pytest.fixture(scope="module")
def history() -> History:
    """Three closed rounds and a live one; task 2 is the poorest and never taken."""
    stage = Stage()
    stage.publish()
    stage.now += 1
    for reward in (2_000, 30_000, 9_000, 5_000):
        stage.publish(reward)
    for _ in range(3):
        stage.run_round({ALICE: 900_000, BOB: 800_000}, BOB)
    stage.release()
    assert stage.parameters == PARAMETERS
    return stage.replay()


@pytest.fixture
def chain(history: History) -> list[tuple[Header, bytes]]:
    return [(header, header_hash(header)) for header in history.headers]


def test_rebuild__equals_what_was_hashed_on_chain(history: History) -> None:
    parent = history.headers[0].parent
    for number in (1, 2, 3):
        header = rebuild(history.rounds[number], parent)
        parent = header_hash(header)
        assert parent == history.rounds[number].header_hash
    assert history.last_header == parent


def test_rebuild__live_round__is_refused(history: History) -> None:
    with pytest.raises(LedgerError, match="not closed"):
        rebuild(history.rounds[4], bytes(32))


def test_verify_headers__honest__finds_nothing(history: History) -> None:
    assert verify_headers(history) == []


def test_verify_headers__altered_record__names_the_round(history: History) -> None:
    record = replace(history.rounds[2], score=1)
    lied = replace(history, rounds={**history.rounds, 2: record})
    assert [(each.round, each.rule) for each in verify_headers(lied)] == [(2, Rule.HEADER)]


def test_verify_chain__wrong_genesis__names_the_first(chain: list[tuple[Header, bytes]]) -> None:
    assert [each.round for each in verify_chain(chain, bytes(32))] == [1]


def test_verify_chain__gap__names_the_header_after_it(chain: list[tuple[Header, bytes]]) -> None:
    genesis = chain[0][0].parent
    findings = verify_chain([chain[0], chain[2]], genesis)
    assert [each.round for each in findings] == [3]


def test_verify_chain__foreign_parent__names_the_header(chain: list[tuple[Header, bytes]]) -> None:
    genesis = chain[0][0].parent
    stranger = replace(chain[1][0], parent=b"\x01" * 32)
    findings = verify_chain([chain[0], (stranger, header_hash(stranger))], genesis)
    assert [(each.round, each.task_id) for each in findings] == [(2, 3)]


def test_link__takes_the_parent_that_fits(chain: list[tuple[Header, bytes]]) -> None:
    header, logged = chain[1]
    bare = replace(header, parent=bytes(32))
    assert link(bare, logged, [b"\x01" * 32, header.parent]) == header


def test_unfinished_tasks__are_the_pool_before_the_selection(history: History) -> None:
    lists = [unfinished_tasks(history, number) for number in (1, 2, 3, 4)]
    assert lists == [(1,), (3, 4, 5, 2), (4, 5, 2), (5, 2)]
