"""One model scored by several real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from tiny_task import tiny_spec, write_tiny_set

from pouw.documents import Caps
from pouw.errors import ProcessError
from pouw.ml.checkpoint import floating_state, save_model
from pouw.ml.networks import build
from pouw.ml.requests import ScoringAnswer, ScoringRequest
from pouw.ml.scoring import Scorer
from pouw.roles.processes import Crashed, ScoringProcess
from pouw.roles.scorers import LOSSES, ScoringPool, SeatLost, local_scoring, scored

SPEC = tiny_spec()
CASES = 6
PATIENCE_SECONDS = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def request_(folder: Path) -> ScoringRequest:
    torch.manual_seed(1)
    save_model(folder / "m.safetensors", build(SPEC.network, 1, 3, parameters_cap=100_000))
    data = write_tiny_set(folder / "data", train=1, test=CASES)
    return ScoringRequest(id="m", spec=SPEC, data=data, model=folder / "m.safetensors")


@pytest.fixture(scope="module")
def alone(request_: ScoringRequest) -> ScoringAnswer:
    return Scorer().answer(request_)


@pytest.fixture(scope="module")
def seats(folder: Path) -> Iterator[list[ScoringProcess]]:
    both = [ScoringProcess(folder / f"{place}.log", "cpu") for place in range(2)]
    yield both
    for seat in both:
        seat.end()


@pytest.fixture
def pool(seats: list[ScoringProcess]) -> Iterator[ScoringPool]:
    pool = ScoringPool(seats)
    yield pool
    pool.cancel()
    pool.answer(PATIENCE_SECONDS)


def end_whoever_scores(
    pool: ScoringPool, seats: list[ScoringProcess], by: signal.Signals
) -> ScoringAnswer:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        for seat in seats:
            if seat.busy and seat.pid is not None:
                with contextlib.suppress(ProcessLookupError):  # it died of the last one
                    os.kill(seat.pid, by)
        answer = pool.answer(0.05)
        if answer is not None:
            return answer
    raise AssertionError


def test_pool__true_claim__answers_what_one_process_does(
    pool: ScoringPool, request_: ScoringRequest, alone: ScoringAnswer
) -> None:
    pool.ask(request_.model_copy(update={"claim_ppm": alone.score_ppm}))
    answer = pool.answer(PATIENCE_SECONDS)
    assert answer is not None
    assert answer.reason == "score"
    assert (answer.score_ppm, answer.cases) == (alone.score_ppm, alone.cases)
    assert not pool.busy


def test_pool__false_claim__is_refused_with_a_proof_and_the_next_model_is_taken(
    pool: ScoringPool, request_: ScoringRequest, alone: ScoringAnswer
) -> None:
    pool.ask(request_.model_copy(update={"claim_ppm": 990_000}))
    answer = pool.answer(PATIENCE_SECONDS)
    assert answer is not None
    assert (answer.reason, answer.score_ppm) == ("bound", None)
    assert answer.best_ppm is not None
    assert alone.score_ppm is not None
    assert alone.score_ppm <= answer.best_ppm < 990_000
    assert len(answer.cases) < CASES
    pool.ask(request_)
    after = pool.answer(PATIENCE_SECONDS)
    assert after is not None
    assert after.cases == alone.cases


def test_pool__of_one_process__has_scored_every_case_before_it_is_looked_at(
    seats: list[ScoringProcess], request_: ScoringRequest, alone: ScoringAnswer
) -> None:
    seat = seats[0]
    pool = ScoringPool([seat])
    for model in (None, request_.model):
        pool.ask(request_.model_copy(update={"model": model}))
        until = time.monotonic() + PATIENCE_SECONDS
        while seat._answers.empty() and time.monotonic() < until:
            time.sleep(0.05)
        answer = pool.answer()
        assert answer is not None
        assert answer.cases == (() if model is None else alone.cases)
        assert answer.reason == ("usable" if model is None else "score")


def test_pool__cancelled__ends_with_time(pool: ScoringPool, request_: ScoringRequest) -> None:
    pool.ask(request_)
    pool.cancel()
    answer = pool.answer(PATIENCE_SECONDS)
    assert answer is not None
    assert (answer.reason, answer.score_ppm) == ("time", None)


def test_pool__ended_in_the_middle__takes_the_next_model(
    pool: ScoringPool, request_: ScoringRequest, alone: ScoringAnswer
) -> None:
    pool.ask(request_)
    pool.answer()
    pool.end()
    pool.ask(request_)
    answer = pool.answer(PATIENCE_SECONDS)
    assert answer is not None
    assert answer.score_ppm == alone.score_ppm


def test_pool__a_process_killed_once__its_case_is_scored_again(
    pool: ScoringPool,
    seats: list[ScoringProcess],
    request_: ScoringRequest,
    alone: ScoringAnswer,
) -> None:
    pool.ask(request_)
    assert seats[0].pid is not None
    os.kill(seats[0].pid, signal.SIGKILL)
    answer = pool.answer(PATIENCE_SECONDS)
    assert answer is not None
    assert (answer.score_ppm, answer.cases) == (alone.score_ppm, alone.cases)


def test_pool__a_case_that_crashes_its_process_twice__is_an_error_that_names_the_signal(
    pool: ScoringPool, seats: list[ScoringProcess], request_: ScoringRequest
) -> None:
    pool.ask(request_)
    with pytest.raises(Crashed, match="SIGSEGV"):
        end_whoever_scores(pool, seats, signal.SIGSEGV)
    assert not pool.busy


def test_pool__a_process_killed_over_one_case_twice__nobody_can_tell_and_the_model_is_not_at_fault(
    pool: ScoringPool, seats: list[ScoringProcess], request_: ScoringRequest, alone: ScoringAnswer
) -> None:
    pool.ask(request_)
    answer = end_whoever_scores(pool, seats, signal.SIGKILL)
    assert (answer.reason, answer.score_ppm) == ("local", None)
    assert "SIGKILL" in answer.detail
    pool.ask(request_)
    after = pool.answer(PATIENCE_SECONDS)
    assert after is not None
    assert after.score_ppm == alone.score_ppm


def test_pool__a_case_that_takes_too_long_twice__nobody_can_tell(
    folder: Path, request_: ScoringRequest
) -> None:
    seat = ScoringProcess(folder / "slow.log", "cpu", model_seconds=0.0)
    pool = ScoringPool([seat])
    try:
        pool.ask(request_)
        answer = pool.answer(PATIENCE_SECONDS)
        assert answer is not None
        assert answer.reason == "local"
        assert "took more than 0 s" in answer.detail
    finally:
        pool.end()


class VanishingSeat:
    """A machine that is always gone by the time it should answer."""

    busy = False

    def __init__(self) -> None:
        self.asked = 0

    def warm(self) -> None: ...

    def ask(self, request: ScoringRequest) -> None:
        self.asked += 1

    def answer(self, timeout_seconds: float = 0.0) -> ScoringAnswer | None:
        raise SeatLost("gone")

    def cancel(self) -> None: ...

    def end(self) -> None: ...


def test_pool__a_case_that_loses_machine_after_machine__nobody_can_tell(
    request_: ScoringRequest,
) -> None:
    seat = VanishingSeat()
    pool = ScoringPool([seat])
    pool.ask(request_)
    answer = pool.answer(PATIENCE_SECONDS)
    assert answer is not None
    assert answer.reason == "local"
    assert seat.asked == LOSSES
    assert not pool.busy


def test_pool__no_data_set__is_no_fault_of_the_model(
    pool: ScoringPool, request_: ScoringRequest, tmp_path: Path
) -> None:
    pool.ask(request_.model_copy(update={"data": tmp_path / "absent"}))
    answer = pool.answer(PATIENCE_SECONDS)
    assert answer is not None
    assert (answer.reason, answer.score_ppm) == ("data", None)


def test_process__longer_than_allowed__is_ended(folder: Path, request_: ScoringRequest) -> None:
    process = ScoringProcess(folder / "slow.log", "cpu", model_seconds=0.0)
    try:
        process.ask(request_)
        with pytest.raises(ProcessError, match="took more than 0 s"):
            process.answer(0.01)
        assert not process.busy
        assert process.pid is None
    finally:
        process.end()


def flat_cases(root: Path) -> Path:
    """Fewer slices than threads, each a window: threads share out what is within one."""
    random = np.random.default_rng(1)
    root.mkdir()
    write_tiny_set(root, train=0, test=0)
    for case in range(3):
        label = np.zeros((128, 128, 2), np.uint8)
        image = random.normal(0, 0.2, label.shape)
        for value in (1, 2):
            x, y = random.integers(10, 60, 2)
            label[x : x + 50, y : y + 50] = value
        image += 2.0 * (label == 1) - 2.0 * (label == 2)
        for part, suffix, voxels in (
            ("imagesTs", "_0000", (image * 1000).astype(np.int16)),
            ("labelsTs", "", label),
        ):
            (root / part).mkdir(exist_ok=True)
            nibabel.save(
                nibabel.Nifti1Image(voxels, np.eye(4)), root / part / f"c{case}{suffix}.nii.gz"
            )
    return root


def test_pool__score_that_rounding_decides__is_that_of_one_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Biases of 10^7.5 before a group norm leave it nothing but what rounding left of an image."""
    arguments = {**SPEC.network.arguments, "channels": (16, 32, 64, 64), "strides": (2, 2, 2)}
    spec = tiny_spec(
        network=SPEC.network.model_copy(update={"arguments": arguments}),
        inference=SPEC.inference.model_copy(update={"patch": (128, 128)}),
        caps=Caps(model_bytes=64 << 20, parameters=5_000_000, activation_bytes=1 << 30),
    )
    torch.manual_seed(2)
    network = build(spec.network, 1, 3, parameters_cap=5_000_000)
    with torch.no_grad():
        for name, tensor in floating_state(network).items():
            if tensor.dim() > 1:
                tensor.copy_(torch.randn_like(tensor))
            elif name.endswith("conv.bias") and tensor.numel() != 3:
                tensor.fill_(10**7.5)
    save_model(folder / "edge.safetensors", network)
    data = flat_cases(folder / "edge")
    request = ScoringRequest(id="m", spec=spec, data=data, model=folder / "edge.safetensors")
    alone = Scorer().answer(request)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    pool = local_scoring(2, lambda log: ScoringProcess(log, "cpu"), folder)
    try:
        answer = scored(pool, request)
    finally:
        pool.end()
    assert alone.score_ppm
    assert (answer.score_ppm, answer.cases) == (alone.score_ppm, alone.cases)
