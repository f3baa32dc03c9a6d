from __future__ import annotations

import json
from pathlib import Path

import pytest

from pouw.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["simulate", *words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_double_spend__small_plan__prints_and_draws_its_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "attack.svg"
    words = ("--shares", "0.1,0.5", "--miners", "1", "--trials", "200", "--plot", str(picture))
    document = run(capsys, "double-spend", *words)
    assert [one["share"] for one in document["attacks"]] == [0.1, 0.5]
    assert 0 < document["even_share"]["1"] < 1
    assert document["trainings"] >= 70
    assert "<svg" in picture.read_text()
    assert main(["simulate", "double-spend", *words[:4], "--trials", "100"]) == 0
    assert "wins every other task" in capsys.readouterr().out


def test_selection__two_loads__prints_tenths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "selection.png"
    words = ("--load", "0.5,2", "--rounds", "400", "--repetitions", "3", "--plot", str(picture))
    document = run(capsys, "selection", *words)
    assert set(document["loads"]) == {"0.5", "2.0"}
    assert len(document["loads"]["2.0"]) == 10
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_load__small__counts(capsys: pytest.CaptureFixture[str]) -> None:
    document = run(capsys, "load", "--tasks", "3000", "--miners", "200")
    assert (document["rounds"], document["reveals"]) == (3, 300)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("double-spend", "--shares", "1.5"), "1.5 is not from 0.001 to 0.999"),
        (("double-spend", "--shares", "a"), "write numbers"),
        (("selection", "--patience", "5000"), "too few for a patience"),
        (("double-spend", "--plot", "a.xyz"), "must end with one of .png"),
    ],
)
def test_simulate__senseless__says_what_is_wrong(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *words]) != 0
    assert message in capsys.readouterr().err
