"""Scoring a stranger's model: ``python -m pouw.ml.scoring``, a resident child of the oracle.

It reads one ``ScoringRequest`` a line from standard input and writes one ``ScoringAnswer`` a line
to standard output, nothing else; chatter goes to standard error. It stays because importing torch
and MONAI takes seconds. Whatever a model holds ends in an answer.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import nn

from pouw.documents import CaseCounts, TaskSpec
from pouw.errors import ConfigError, DataError, ModelError, ModelTooLarge, PouwError, ProcessError
from pouw.files import atomic_file
from pouw.ml.checkpoint import load_model
from pouw.ml.data import CaseFile, Image, Label, load_case, read_dataset
from pouw.ml.device import (
    choose_device,
    describe_device,
    describe_software,
    make_repeatable,
    settle_imports,
)
from pouw.ml.dice import case_counts, score_ppm
from pouw.ml.inference import predict, prepare, to_stored_grid, windows_at_once
from pouw.ml.requests import DeviceName, ScoringAnswer, ScoringReason, ScoringRequest

_CACHE_BYTES = 2 << 30
_MAX_DETAIL = 4096


class _OutOfTime(PouwError):
    """The request's ``stop_at_ms`` has passed."""


@dataclass(frozen=True, slots=True)
class _TestCase:
    """A prepared image with the label as stored."""

    image: Image
    label: Label

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = self.label.shape
        return x, y, z


@dataclass(frozen=True, slots=True)
class _Outcome:
    reason: ScoringReason
    detail: str = ""
    score_ppm: int | None = None
    cases: tuple[CaseCounts, ...] = ()


class Scorer:
    """Scores models one after another; the prepared cases of one test set stay in memory."""

    def __init__(self, device: DeviceName = "cpu", threads: int = 1) -> None:
        self._device = choose_device(device)
        make_repeatable(self._device, threads)
        self._software = describe_software()
        self._described = describe_device(self._device, threads)
        self._key: tuple[Path, bytes] | None = None
        self._files: tuple[CaseFile, ...] = ()
        self._cases: dict[str, _TestCase] = {}
        self._cached_bytes = 0

    def answer(self, request: ScoringRequest) -> ScoringAnswer:
        """Score the request's model; whatever is wrong is in the answer, never raised."""
        begun = time.monotonic()
        try:
            cases = self._judge(request)
            score = score_ppm([None if case.failed else case.counts for case in cases])
            outcome = _Outcome("score", score_ppm=score, cases=cases)
        except ModelTooLarge as error:
            outcome = _Outcome("caps", str(error))
        except ModelError as error:
            outcome = _Outcome("model", str(error))
        except DataError as error:
            outcome = _Outcome("data", str(error))
        except _OutOfTime as error:
            outcome = _Outcome("time", str(error))
        except OSError as error:
            outcome = _Outcome("local", str(error))
        return self._wrap(request.id, outcome, begun)

    def refuse(self, error: ProcessError) -> ScoringAnswer:
        """The answer to a line that is no request."""
        return self._wrap("unknown", _Outcome("local", str(error)), time.monotonic())

    def _wrap(self, request_id: str, outcome: _Outcome, begun: float) -> ScoringAnswer:
        return ScoringAnswer(
            id=request_id,
            score_ppm=outcome.score_ppm,
            cases=outcome.cases,
            reason=outcome.reason,
            detail=outcome.detail[:_MAX_DETAIL],
            milliseconds=int((time.monotonic() - begun) * 1000),
            software=self._software,
            device=self._described,
        )

    def _judge(self, request: ScoringRequest) -> tuple[CaseCounts, ...]:
        spec = request.spec
        network = load_model(
            request.model, spec.network, len(spec.channels), len(spec.labels), spec.caps
        ).to(self._device)
        # A spec whose windows pass its own cap ends here, before any image is touched.
        windows_at_once(spec)
        self._open(request.data, spec)
        results: list[CaseCounts] = []
        for file in self._files:
            if request.stop_at_ms is not None and time.time() * 1000 >= request.stop_at_ms:
                raise _OutOfTime(f"{len(results)} of {len(self._files)} cases were scored in time")
            results.append(self._judge_case(network, file, request))
        return tuple(results)

    def _judge_case(
        self, network: nn.Module, file: CaseFile, request: ScoringRequest
    ) -> CaseCounts:
        test = self._load(file, request.spec)
        # Weights chosen to drown a CPU in denormal numbers cost no more than others.
        torch.set_flush_denormal(True)
        try:
            labels = to_stored_grid(predict(network, test.image, request.spec), test.shape)
        except (ModelError, RuntimeError, ValueError, MemoryError) as error:
            print(f"case {file.name} failed: {error}", file=sys.stderr)
            return CaseCounts(name=file.name, failed=True, counts=())
        finally:
            torch.set_flush_denormal(False)
        if request.predictions is not None:
            with atomic_file(request.predictions / f"{file.name}.npy") as out:
                np.save(out, labels, allow_pickle=False)
        counts = case_counts(labels, test.label, len(request.spec.labels))
        return CaseCounts(name=file.name, failed=False, counts=tuple(counts))

    def _open(self, data: Path, spec: TaskSpec) -> None:
        key = (data.resolve(), spec.digest())
        if key != self._key:
            self._key, self._cases, self._cached_bytes = None, {}, 0
            self._files = read_dataset(data).test
            if not self._files:
                raise DataError(f"{data} holds no test case")
            self._key = key

    def _load(self, file: CaseFile, spec: TaskSpec) -> _TestCase:
        test = self._cases.get(file.name)
        if test is None:
            case = load_case(file, len(spec.labels))
            if case.label is None:
                raise DataError(f"test case {file.name} has no label")
            test = _TestCase(prepare(case, spec), case.label)
            size = test.image.nbytes + test.label.nbytes
            if self._cached_bytes + size <= _CACHE_BYTES:
                self._cases[file.name] = test
                self._cached_bytes += size
        return test


def score(
    model: Path, data: Path, spec: TaskSpec, predictions: Path | None = None
) -> ScoringAnswer:
    """The answer for one model on the test cases of ``data``, on this CPU with one thread."""
    request = ScoringRequest(
        id=model.name, spec=spec, data=data, model=model, predictions=predictions
    )
    return Scorer().answer(request)


def serve(lines: TextIO, answers: TextIO, scorer: Scorer) -> None:
    """Answer every line of ``lines`` until it ends."""
    for line in lines:
        try:
            answer = scorer.answer(ScoringRequest.parse(line))
        except ProcessError as error:
            answer = scorer.refuse(error)
        answers.write(answer.line() + "\n")
        answers.flush()


def main(arguments: list[str]) -> int:
    """Serve requests from standard input until it ends."""
    parser = argparse.ArgumentParser(prog="python -m pouw.ml.scoring", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    settle_imports()
    # Whatever a library prints from here on goes to standard error.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        try:
            scorer = Scorer(options.device, options.threads)
        except ConfigError as error:
            print(f"scoring cannot start: {error}", file=sys.stderr)
            return 1
        serve(sys.stdin, answers, scorer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
