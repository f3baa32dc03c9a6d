"""Scoring a stranger's model: ``python -m pouw.ml.scoring``, a resident child of the oracle.

It reads one ``ScoringRequest`` a line from standard input and writes one ``ScoringAnswer`` a line
to standard output, nothing else; chatter goes to standard error. It stays because importing torch
and MONAI takes seconds. Whatever a model holds ends in an answer, within bounds of memory and of
CPU time; as a child the process has given up sockets and other programs before it reads a request
(``pouw.ml.sandbox``). SIGUSR1 cancels the request under way.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from torch import nn

from pouw.documents import CaseCounts
from pouw.errors import DataError, ModelError, ModelTooLarge, PouwError, ProcessError
from pouw.files import atomic_file, of_machine
from pouw.ml.bound import ScoreBound
from pouw.ml.device import (
    describe_device,
    describe_software,
)
from pouw.ml.dice import Counts, score_ppm
from pouw.ml.host import Host, MachineFault, TooSlow, run_confined
from pouw.ml.inference import predict_stored
from pouw.ml.requests import DeviceName, ScoringAnswer, ScoringReason, ScoringRequest
from pouw.ml.testset import OpenedSet, Tally

_MAX_DETAIL = 4096
_THREADS = 1


class _OutOfTime(PouwError):
    """The request's ``stop_at_ms`` has passed, or it was cancelled."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    reason: ScoringReason
    detail: str = ""
    score_ppm: int | None = None
    cases: tuple[CaseCounts, ...] = ()
    best_ppm: int | None = None


class Scorer:
    """Scores models one after another; the prepared cases of one test set stay in memory.

    On one thread, whoever scores: how many there are decides how sums are rounded, and weights can
    be made so large that this decides a score.
    """

    def __init__(self, device: DeviceName = "cpu") -> None:
        self._host = Host(device, _THREADS)
        self._software = describe_software()
        self._described = describe_device(self._host.device, _THREADS)
        self._tests = OpenedSet()
        self._cancelled = False

    def answer(self, request: ScoringRequest) -> ScoringAnswer:
        """Score the request's model; whatever is wrong is in the answer, never raised."""
        begun = time.monotonic()
        self._cancelled = False
        try:
            outcome = self._judge(request)
        except ModelTooLarge as error:
            outcome = _Outcome("caps", str(error))
        except (ModelError, TooSlow) as error:
            outcome = _Outcome("model", str(error))
        except MachineFault as error:
            outcome = _Outcome("local", str(error))
        except MemoryError as error:
            outcome = _Outcome("local", f"this machine has not the memory: {error}")
        except DataError as error:
            outcome = _Outcome("local" if of_machine(error) else "data", str(error))
        except _OutOfTime as error:
            outcome = _Outcome("time", str(error))
        except OSError as error:
            outcome = _Outcome("local", str(error))
        return self._wrap(request.id, outcome, begun)

    def refuse(self, error: ProcessError) -> ScoringAnswer:
        """The answer to a line that is no request."""
        return self._wrap("unknown", _Outcome("local", str(error)), time.monotonic())

    def cancel(self) -> None:
        """Let the request under way end with "time"; safe to call from a signal handler."""
        self._cancelled = True

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
            best_ppm=outcome.best_ppm,
        )

    def _judge(self, request: ScoringRequest) -> _Outcome:
        spec, share = request.spec, request.share
        self._host.rehearse(spec)
        names = self._tests.open(request.data, spec, share.cases if share else None)
        if request.model is None:
            for name in names:
                self._check_time(request, f"cancelled or too late while looking at {name}")
                self._tests.load(name, spec)
            return _Outcome("usable")
        network = self._host.load(request.model, spec)
        bound = ScoreBound(
            share.of if share else len(names), request.claim_ppm, share.lost_ppb if share else 0
        )
        results: list[CaseCounts] = []
        for name in names:
            self._check_time(request, f"{len(results)} of {len(names)} cases were scored in time")
            counts, whole = self._judge_case(network, name, request, bound)
            results.append(CaseCounts(name=name, failed=counts is None, counts=counts or ()))
            if not whole:
                return _refused(results, bound.best_ppm(counts), whole=False)
            bound.add(counts)
            if bound.refuses():
                return _refused(results, bound.best_ppm(), whole=True)
        score = None if share else score_ppm([None if c.failed else c.counts for c in results])
        return _Outcome("score", score_ppm=score, cases=tuple(results))

    def _judge_case(
        self, network: nn.Module, name: str, request: ScoringRequest, bound: ScoreBound
    ) -> tuple[tuple[Counts, ...] | None, bool]:
        """The counts of one case, None where it fails; False where the bound ended it early.

        MemoryError where memory runs out: weights decide nothing about how much it takes, so that
        says nothing about the model.
        """
        test = self._tests.load(name, request.spec)
        bounds = self._host.bounded(name, test.image, request.spec)
        slabs = predict_stored(network, test.image, request.spec, test.shape)
        tally = Tally(test, keep=request.predictions is not None)
        try:
            with bounds as check_time:
                for slab in slabs:
                    tally.add(slab)
                    if bound.refuses(tally.at_best()):
                        return tally.at_best(), False
                    self._check_time(request, f"cancelled or too late while scoring {name}")
                    check_time()
        except (ModelError, ValueError) as error:
            print(f"case {name} failed: {error}", file=sys.stderr)
            return None, True
        except (RuntimeError, MemoryError) as error:
            raise MachineFault(f"case {name}: {error}") from error
        if request.predictions is not None and tally.labels is not None:
            with atomic_file(request.predictions / f"{name}.npy") as out:
                np.save(out, tally.labels, allow_pickle=False)
        return tally.counts(), True

    def _check_time(self, request: ScoringRequest, detail: str) -> None:
        late = request.stop_at_ms is not None and time.time() * 1000 >= request.stop_at_ms
        if late or self._cancelled:
            raise _OutOfTime(detail)


def _refused(results: Sequence[CaseCounts], best_ppm: int, *, whole: bool) -> _Outcome:
    part = "" if whole else ", the last in part and its rest taken as perfect"
    detail = f"at most {best_ppm} ppm can be reached after {len(results)} case(s){part}"
    return _Outcome("bound", detail, cases=tuple(results), best_ppm=best_ppm)


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

    def begin(device: DeviceName) -> Callable[[TextIO], None]:
        scorer = Scorer(device)
        signal.signal(signal.SIGUSR1, lambda *_: scorer.cancel())
        return lambda answers: serve(sys.stdin, answers, scorer)

    return run_confined("scoring", __doc__ or "", arguments, begin)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
