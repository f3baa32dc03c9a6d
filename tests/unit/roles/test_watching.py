from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pouw.cli.main import cli, main
from pouw.cli.watch import facts
from pouw.ml.requests import Finished, Progress, Snapshot
from pouw.roles.watching import read_training


def line(step: int, fraction_ppm: int) -> str:
    return Progress(
        step=step,
        milliseconds=step * 10,
        train_loss_ppm=700_000,
        learning_rate_ppm=1,
        fraction_ppm=fraction_ppm,
        ends_at_ms=100_000,
    ).line()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, text in ((1, line(900, 990_000) + "\n"), (12, f"{line(1, 10)}\n{line(7, 70)}\n")):
        out = tmp_path / "rounds" / str(number)
        out.mkdir(parents=True)
        (out / "progress.jsonl").write_text(text + '{"step": 8, "mill')
    return tmp_path


def test_read_training__torn_last_line__last_whole_one_of_the_latest_round(home: Path) -> None:
    state = read_training(home)
    assert state is not None
    assert (state.round, state.step, state.fraction_ppm) == (12, 7, 70)
    assert (state.dice_ppm, state.ended) == (None, None)
    assert facts(state, now=30).startswith("step 7, loss 0.700, Dice -, 1:10 left, finish ")


def test_read_training__finished__says_why_and_how_good(home: Path) -> None:
    out = home / "rounds" / "12"
    (out / "finished.json").write_text(Finished(step=9, milliseconds=90, reason="deadline").line())
    snapshot = Snapshot(
        step=9,
        milliseconds=90,
        model="m",
        checkpoint="c",
        checkpoint_bytes=1,
        previous=None,
        train_loss_ppm=1,
        validation_dice_ppm=812_345,
    )
    (out / "snapshots.jsonl").write_text(snapshot.line() + "\n")
    state = read_training(home)
    assert state is not None
    assert facts(state, now=0) == "step 9, loss 0.700, Dice 0.8123, ended: deadline"


def test_read_training__nothing_trained__none(tmp_path: Path) -> None:
    (tmp_path / "rounds" / "1").mkdir(parents=True)
    assert read_training(tmp_path) is None
    assert read_training(tmp_path / "absent") is None


def test_watch__json__one_document(home: Path) -> None:
    done = CliRunner().invoke(cli, ["miner", "watch", "--home", str(home), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["step"] == 7


def test_watch__finished__draws_and_ends(home: Path) -> None:
    (home / "rounds" / "12" / "finished.json").write_text(
        Finished(step=9, milliseconds=90, reason="max-steps").line()
    )
    done = CliRunner().invoke(cli, ["miner", "watch", "--home", str(home)])
    assert done.exit_code == 0, done.output
    assert "round 12" in done.output
    assert "ended: max-steps" in done.output


def test_watch__no_terminal__a_line_now_and_then_until_the_training_is_over(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pouw.cli.watch._PAUSE_SECONDS", 0.01)
    ended = Finished(step=9, milliseconds=90, reason="deadline").line()

    def end() -> None:
        time.sleep(0.3)
        (home / "rounds" / "12" / "finished.part").write_text(ended)
        (home / "rounds" / "12" / "finished.part").rename(home / "rounds" / "12" / "finished.json")

    ending = threading.Thread(target=end)
    ending.start()
    assert main(["miner", "watch", "--home", str(home)]) == 0
    ending.join()

    said = capsys.readouterr()
    assert said.out == ""
    first, last = said.err.splitlines()
    assert first.startswith("round 12: 0 %, step 7, loss 0.700, Dice -, ")
    assert last == "round 12: 100 %, step 9, loss 0.700, Dice -, ended: deadline"
