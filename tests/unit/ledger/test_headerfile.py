from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ledger_stage import ALICE, BOB, Stage

from pouw.errors import LedgerError
from pouw.ledger.headerfile import HeaderFile
from pouw.ledger.history import History


@pytest.fixture(scope="module")
def history() -> History:
    stage = Stage()
    stage.publish()
    stage.now += 1
    for reward in (2_000, 30_000):
        stage.publish(reward)
    stage.run_round({ALICE: 900_000, BOB: 800_000}, BOB)
    stage.run_round({ALICE: 900_000}, ALICE)
    stage.release()
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
    assert parse(document).verified() == history.headers
    assert document["schema"] == "pouw/headers/1"
    assert document["headers"][0]["unfinished"] == []
    assert document["headers"][1]["unfinished"] == [2]


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
