import click
import pytest

from pouw.cli.output import amount, duration, rounded, score
from pouw.cli.values import ADDRESS, AMOUNT, SCORE

ARENA = "0x5FbDB2315678afecb367f032d93F642f64180aa3"


@pytest.mark.parametrize(
    ("text", "wei"),
    [
        ("1ether", 10**18),
        ("1.5 ether", 15 * 10**17),
        ("0.000000000000000001ether", 1),
        ("20gwei", 20 * 10**9),
        ("1_000wei", 1000),
        ("7wei", 7),
        ("0", 0),
        ("0.0", 0),
    ],
)
def test_amount__with_a_unit__is_exact_wei(text: str, wei: int) -> None:
    assert AMOUNT.convert(text, None, None) == wei


@pytest.mark.parametrize(
    "text", ["", "ether", "1finney", "0.5wei", "-1ether", "1e5000ether", "nan", "1 2ether"]
)
def test_amount__senseless__is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        AMOUNT.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("1", "write 1ether, 1gwei or 1wei"),
        ("1_000", "write 1000ether, 1000gwei or 1000wei"),
        ("0.5", "write 0.5ether or 0.5gwei"),
        ("1e3", "write 1e3ether, 1e3gwei or 1e3wei"),
    ],
)
def test_amount__without_a_unit__asks_for_one(text: str, units: str) -> None:
    with pytest.raises(click.BadParameter, match=f"what\\? {units}$"):
        AMOUNT.convert(text, None, None)


@pytest.mark.parametrize(("text", "ppm"), [("0.85", 850_000), ("1", 1_000_000), ("0", 0)])
def test_score__decimal__is_ppm(text: str, ppm: int) -> None:
    assert SCORE.convert(text, None, None) == ppm


@pytest.mark.parametrize("text", ["85", "-0.1", "0.1234567", "nan", "inf", "best"])
def test_score__out_of_range_or_too_fine__is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        SCORE.convert(text, None, None)


def test_address__lower_case__gets_its_checksum() -> None:
    assert ADDRESS.convert(ARENA.lower(), None, None) == ARENA


@pytest.mark.parametrize("text", [ARENA[:-1], ARENA.replace("F", "f", 1), "0x" + "0" * 40, "me"])
def test_address__that_is_none__is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        ADDRESS.convert(text, None, None)


@pytest.mark.parametrize(
    ("wei", "text"),
    [
        (0, "0 wei"),
        (999, "999 wei"),
        (2 * 10**9, "2 gwei"),
        (10**18, "1 ether"),
        (10**18 + 1, "1.000000000000000001 ether"),
        (95 * 10**16, "0.95 ether"),
    ],
)
def test_amount__shown__loses_nothing(wei: int, text: str) -> None:
    assert amount(wei) == text
    assert AMOUNT.convert(text, None, None) == wei


def test_rounded__never_shows_more_than_there_is() -> None:
    assert rounded(10**18 - 1) == "0.9999 ether"
    assert rounded(0) == "-"


def test_score__shown__is_rounded_down() -> None:
    assert score(849_999) == "0.8499"
    assert score(1_000_000) == "1.0000"
    assert score(None) == "-"


def test_duration__shown__names_its_units() -> None:
    assert [duration(seconds) for seconds in (-3, 59, 75, 3700)] == [
        "0 s",
        "59 s",
        "1 min 15 s",
        "1 h 01 min",
    ]
