import io

import pytest
from rich.console import Console

from pouw.cli.demo.screen import LiveScreen, PlainScreen

MINER = ("miner-1", {"doing": "train", "data": {"step": 40, "validation_dice_ppm": 851_234}})
ORACLE = ("oracle-1", None)


def test_plain_screen__event__is_one_line_with_the_elapsed_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with PlainScreen() as screen:
        screen.say("miner-1 commits in round 1")

    (line,) = capsys.readouterr().err.splitlines()
    assert line == "   0.0  miner-1 commits in round 1"


def test_plain_screen__quiet_time__shows_phase_and_models_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with PlainScreen() as screen:
        screen.show("round 1, phase 1", [MINER, ORACLE])
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("pouw.cli.demo.screen._HEARTBEAT_SECONDS", 0.0)
        screen.show("round 1, phase 1", [MINER, ORACLE])

    assert "round 1, phase 1; miner-1 step 40, validation 0.8512" in capsys.readouterr().err


def test_live_screen__shows_everybody_and_the_last_events() -> None:
    screen = LiveScreen()
    screen.show("round 1, phase 1", [MINER, ORACLE])
    for number in range(30):
        screen.say(f"event {number}.")

    drawn = io.StringIO()
    Console(file=drawn, width=100).print(screen._draw())

    shown = drawn.getvalue()
    assert "round 1, phase 1" in shown
    assert "step 40, validation 0.8512" in shown
    assert "oracle-1" in shown
    assert "starts" in shown
    assert "event 29." in shown
    assert "event 1." not in shown
