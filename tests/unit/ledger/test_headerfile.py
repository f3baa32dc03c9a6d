from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ledger_stage import ALICE, BOB, PUBLISHER, Stage

from pouw.errors import LedgerError
from pouw.ledger.headerfile import HeaderFile
from pouw.ledger.history import History, TaskState


@pytest.fixture(scope="module")
def history() -> History:
    stage = Stage()
    stage.publish()
    stage.now += 1
    for reward in (2_000, 30_000):
        stage.publish(reward)
    stage.arena.cancel(stage.call(PUBLISHER), stage.publish(1_500))
    stage.run_round({ALICE: 900_000, BOB: 800_000}, BOB)
    stage.run_round({ALICE: 900_000}, ALICE)
    stage.release()
    stage.publish(9_000)
    return stage.replay()


@pytest.fixture
def document(history: History) -> dict:
    return json.loads(HeaderFile.of(history).model_dump_json(by_alias=True))


def parse(document: object) -> HeaderFile:
    return HeaderFile.parse(json.dumps(document).encode())


def test_header_file__written_and_read__gives_the_same_verified_headers(
    history: History, document: dict
) -> None:
    assert len(history.headers) == 2
    assert parse(document).verified().headers == history.headers
    assert document["schema"] == "pouw/headers/1"
    assert document["headers"][0]["unfinished"] == []
    assert document["headers"][1]["unfinished"] == [2]


def test_header_file__cancelled_and_later_tasks__are_not_known(history: History) -> None:
    chain = HeaderFile.of(history).verified()
    specs = {history.tasks[task_id].spec_digest for task_id in (1, 2, 3)}
    assert {task.state for task in history.tasks.values()} >= {TaskState.CANCELLED}
    assert chain.known == specs


@pytest.mark.parametrize(
    ("line", "change", "message"),
    [
        (2, {"reward_wei": "2001"}, "round 2: its pool history does not follow"),
        (2, {"reward_wei": "3000000"}, "select of task 3 but task 2 was the head"),
        (2, {"spec_digest": "0x" + "77" * 32}, "round 2: its pool history does not follow"),
        (2, {"kind": "select"}, "select of task 2 is not what the pool allows"),
        (3, {"task": 2}, "publish of task 2 is not what the pool allows"),
    ],
)
def test_header_file__altered_pool__is_found(
    document: dict, line: int, change: dict, message: str
) -> None:
    document["pool"][line] |= change
    with pytest.raises(LedgerError, match=message):
        parse(document).verified()


def test_header_file__another_list_of_unfinished_tasks__is_found(document: dict) -> None:
    document["headers"][1]["unfinished"] = []
    with pytest.raises(LedgerError, match="not what round 2 says"):
        parse(document).verified()


@pytest.mark.parametrize("field", ["score_ppm", "closed_at", "task"])
def test_header_file__altered_header__is_named(document: dict, field: str) -> None:
    document["headers"][1][field] += 1
    with pytest.raises(LedgerError, match=r"round 2.*hashes to"):
        parse(document).verified()


def test_header_file__of_another_arena__does_not_hold(document: dict) -> None:
    document["chain_id"] += 1
    with pytest.raises(LedgerError, match=r"round 1.*as its parent"):
        parse(document).verified()


def test_header_file__missing_round__is_named(history: History, document: dict) -> None:
    del document["headers"][0]
    with pytest.raises(LedgerError, match=r"round 2.*follows header 0"):
        parse(document).verified()


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"headers": []},
        {"schema": "pouw/headers/2", "chain_id": 1, "arena": "0x" + "11" * 20, "headers": []},
    ],
)
def test_header_file__something_else__is_refused(wrong: object) -> None:
    with pytest.raises(LedgerError, match="not a file of headers"):
        parse(wrong)


def test_header_file__lie_of_the_contract__survives_the_file(history: History) -> None:
    record = replace(history.rounds[2], header_hash=bytes(32))
    lied = replace(history, rounds={**history.rounds, 2: record})
    with pytest.raises(LedgerError, match=r"round 2"):
        HeaderFile.of(lied).verified()
