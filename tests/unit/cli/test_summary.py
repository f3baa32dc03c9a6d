import json
from dataclasses import replace

import pytest

from pouw.cli.demo import cast
from pouw.cli.demo.summary import RoundSummary, Row, closing_line, failures
from pouw.types import Address

WINNER = Address("0x" + "11" * 20)
OFFERS = {offer.name: offer for offer in cast.OFFERS}


def played(number: int, name: str) -> RoundSummary:
    offer = OFFERS[name]
    return RoundSummary(
        number=number,
        task=2 * number - 1,
        offer=offer,
        baseline_ppm=700_000,
        winner="miner-1",
        winner_address=WINNER,
        claim_ppm=offer.floor_ppm + 10_000,
        measured_ppm=offer.floor_ppm + 10_200,
        paid_wei=95 * 10**16,
        audit="ok",
        liar_burned=True,
        rows=(
            Row("miner-1", 860_000, 860_200, "winner", 95 * 10**16),
            Row(cast.COPYCAT, None, None, "reveal refused: CommitmentMismatch", 0),
        ),
    )


GOOD = [played(1, "brain2d"), played(2, "brain3d")]
POOR_TASK = (2,)


def test_failures__of_a_good_demo__are_none() -> None:
    assert failures(GOOD, 0, POOR_TASK, 2) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"measured_ppm": 849_999}, "floor 0.8500"),
        ({"baseline_ppm": 900_000}, "thresholds 0.9000"),
        ({"measured_ppm": None}, "floor"),
        ({"winner": cast.LIAR}, "no honest miner"),
        ({"winner": None}, "nobody"),
        ({"liar_burned": False}, "bond was not burned"),
        ({"paid_wei": 0}, "nobody was paid"),
        ({"audit": "false"}, "audit says false"),
        ({"offer": OFFERS["poor"]}, "ran task poor"),
        ({"rows": (Row(cast.COPYCAT, 1, None, "winner", 0),)}, "copycat revealed"),
        ({"rows": (Row(cast.COPYCAT, None, None, "did not reveal", 0),)}, "did not even try"),
    ],
)
def test_failures__of_a_round__are_named(change: dict[str, object], expected: str) -> None:
    wrong = failures([replace(GOOD[0], **change), GOOD[1]], 0, POOR_TASK, 2)  # type: ignore[arg-type]

    assert any(expected in line and line.startswith("round 1") for line in wrong), wrong


def test_failures__audit_that_disagrees__fails() -> None:
    assert failures(GOOD, 2, POOR_TASK, 2) == ["the audit ended with 2"]


def test_failures__poor_task_not_left_behind__fails() -> None:
    assert "unfinished" in failures(GOOD, 0, (), 2)[0]


def test_failures__third_round_begun__fails() -> None:
    assert "3 begun" in failures(GOOD, 0, POOR_TASK, 3)[0]


def test_failures__one_round_only__fails() -> None:
    assert "1 rounds were closed" in failures(GOOD[:1], 0, POOR_TASK, 1)[0]


def test_closing_line__is_one_line_of_json_with_amounts_as_text() -> None:
    line = closing_line(GOOD)

    assert "\n" not in line
    assert json.loads(line)["rounds"][0] == {
        "task": 1,
        "winner": WINNER,
        "claim_ppm": 860_000,
        "measured_ppm": 860_200,
        "paid_wei": "950000000000000000",
        "audit": "ok",
    }
