"""Every hostile model ends in a verdict with a reason, in a bound of memory, by a real process.

The process is the oracle's own: resident, confined, and the same one for all attacks, so that each
has to leave it as it was.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hostile_models import ATTACKS, State
from tiny_task import tiny_spec, write_tiny_set

from pouw.errors import ProcessError
from pouw.ml.checkpoint import floating_state, save_model
from pouw.ml.networks import build
from pouw.ml.requests import ScoringAnswer, ScoringRequest
from pouw.roles.processes import ScoringProcess

SPEC = tiny_spec()
PATIENCE_SECONDS = 120.0
SPARE_BYTES = 64 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def honest(folder: Path) -> Path:
    torch.manual_seed(1)
    path = folder / "honest.safetensors"
    save_model(path, build(SPEC.network, 1, 3, parameters_cap=100_000))
    return path


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    return write_tiny_set(folder / "data", train=1, test=2)


@pytest.fixture(scope="module")
def process(folder: Path, data: Path, honest: Path) -> Iterator[ScoringProcess]:
    """A process that has scored an honest model, so that what it needs for that is in memory."""
    process = ScoringProcess(folder / "scoring.log", "cpu")
    assert scored(process, data, honest).reason == "score"
    yield process
    process.end()


def scored(process: ScoringProcess, data: Path, model: Path) -> ScoringAnswer:
    process.ask(ScoringRequest(id=model.name, spec=SPEC, data=data, model=model))
    answer = process.answer(PATIENCE_SECONDS)
    assert answer is not None
    return answer


def state() -> State:
    torch.manual_seed(1)
    return dict(floating_state(build(SPEC.network, 1, 3, parameters_cap=100_000)))


def status(process: ScoringProcess, field: str) -> int:
    """A field of the process's /proc/PID/status; sizes in bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * (1024 if line.endswith("kB") else 1)
    raise AssertionError(field)


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_model__ends_in_its_verdict_and_leaves_the_process_as_it_was(
    process: ScoringProcess, data: Path, tmp_path: Path, name: str
) -> None:
    attack = ATTACKS[name]
    model = tmp_path / "model.safetensors"
    attack.write(model, state())
    before, peak = process.pid, status(process, "VmHWM")
    answer = scored(process, data, model)
    assert answer.reason == attack.reason
    assert attack.detail in answer.detail
    assert process.pid == before
    assert status(process, "VmHWM") < peak + SPARE_BYTES
    assert not (tmp_path / "exploded").exists()


def test_hostile_model__overflow__fails_every_case(
    process: ScoringProcess, data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.safetensors"
    ATTACKS["weights that overflow"].write(model, state())
    answer = scored(process, data, model)
    assert (answer.score_ppm, [case.failed for case in answer.cases]) == (0, [True, True])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells in /proc")
def test_scoring_process__before_any_model__has_given_up_new_privileges_and_calls(
    process: ScoringProcess,
) -> None:
    assert status(process, "NoNewPrivs") == 1
    assert status(process, "Seccomp") == 2


def test_scoring_process__killed_over_a_model__the_next_model_is_scored(
    process: ScoringProcess, data: Path, honest: Path
) -> None:
    """Last of this file: it costs the process."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    process.ask(ScoringRequest(id="m", spec=SPEC, data=data, model=honest))
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ProcessError, match="SIGKILL"):
        process.answer(PATIENCE_SECONDS)
    assert scored(process, data, honest).reason == "score"
