"""`pouw score` on what strangers made: a real confined child, and the oracle's own verdicts."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from exploit import plant
from tiny_task import tiny_spec, write_tiny_set

from pouw.cli.main import main
from pouw.ml.checkpoint import save_model
from pouw.ml.networks import build
from pouw.ml.requests import ScoringRequest
from pouw.ml.scoring import Scorer

SPEC = tiny_spec()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a test set and its spec."""
    folder = tmp_path_factory.mktemp("task")
    write_tiny_set(folder / "data", train=1, test=2)
    (folder / "spec.json").write_bytes(SPEC.encode())
    return folder


class Harm:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._path),)


def test_score__hostile_file__is_read_where_no_socket_and_no_program_can_be_had(
    task: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(pickle.dumps(Harm(tmp_path / "harm")))
    log = plant(tmp_path, "pouw.ml.scoring")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert main(["score", str(model), str(task / "data"), "--json"]) == 1

    said = json.loads(capsys.readouterr().out)["error"]
    assert said.startswith("model.safetensors was not scored (model): the header claims")
    assert not (tmp_path / "harm").exists()
    process, *attempts = log.read_text().split()
    assert int(process) != os.getpid()
    assert attempts == ["PermissionError"] * 3


def test_score__honest_model_under_a_hostile_name__is_what_an_oracle_finds(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    model = tmp_path / "\x1b[2Jmodel.safetensors"
    save_model(model, build(SPEC.network, 1, 3, parameters_cap=100_000))

    assert main(["score", str(model), str(task / "data"), "--json"]) == 0

    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    found = json.loads(said.out)
    request = ScoringRequest(id="m", spec=SPEC, data=task / "data", model=model)
    wanted = Scorer().answer(request).model_dump(mode="json")
    assert found["score_ppm"] > 0
    for key in ("score_ppm", "cases", "reason"):
        assert found[key] == wanted[key]


@pytest.mark.parametrize(
    ("ended_by", "times", "said"),
    [
        ("SEGV", 2, "model.safetensors was not scored (model)"),
        ("KILL", 1, "scoring the model ended the process by SIGKILL"),
    ],
    ids=["by itself", "by a system out of memory"],
)
def test_score__process_dies_over_a_model__twice_is_the_models_fault_unless_the_system_ended_it(
    task: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ended_by: str,
    times: int,
    said: str,
) -> None:
    model, starts = tmp_path / "model.safetensors", tmp_path / "starts"
    model.write_bytes(b"")
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\necho started >> '{starts}'\nkill -{ended_by} $$\n")
    dying.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(dying))

    assert main(["score", str(model), str(task / "data")]) == 1

    assert said in capsys.readouterr().err
    assert starts.read_text() == "started\n" * times


def test_score__spec_that_is_a_pipe_or_too_large__is_refused_at_once(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(1 << 40)
    for spec, reason in ((pipe, "is no file"), (large, "at most")):
        assert main(["score", str(spec), str(task / "data"), "--spec", str(spec)]) == 1
        assert reason in capsys.readouterr().err
