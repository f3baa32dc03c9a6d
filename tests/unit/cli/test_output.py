"""How far a long command is, where standard error is a file and no terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pouw.cli.main import main
from pouw.cli.output import bar

SHORT = 0.02


def test_bar__no_terminal__says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.cli.output.LINE_SECONDS", SHORT)
    with bar() as progress:
        time.sleep(5 * SHORT)
        progress("read the chain", 3, 10)
        time.sleep(5 * SHORT)

    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == ""
    assert lines[0] == "at work, 0 s"
    assert lines[-1] == "read the chain: 30 %, 0 s"
    assert len(lines) <= 11


def test_bar__no_terminal_and_soon_over__says_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with bar() as progress:
        progress("read the chain", 10, 10)

    assert capsys.readouterr().err == ""


def test_score__no_terminal__says_that_it_is_at_work_and_leaves_the_json_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_task import tiny_spec, write_tiny_set

    monkeypatch.setattr("pouw.cli.output.LINE_SECONDS", SHORT)
    write_tiny_set(tmp_path / "data", train=1, test=1)
    (tmp_path / "spec.json").write_bytes(tiny_spec().encode())
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"")

    assert main(["score", str(model), str(tmp_path / "data"), "--json"]) == 1

    said = capsys.readouterr()
    assert "was not scored" in json.loads(said.out)["error"]
    assert said.err.startswith("scoring model.safetensors, 0 s\n")
