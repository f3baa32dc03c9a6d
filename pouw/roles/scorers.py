"""Several processes that score one model together, on this machine or on others.

A model's cases are handed out one by one, in hash order; the answer is the same as one process
would give, but for the order in which a false claim is found out.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pouw.documents import CaseCounts
from pouw.errors import DataError, MachineFailed, ProcessError
from pouw.ml.bound import ScoreBound, in_hash_order
from pouw.ml.dice import score_ppm
from pouw.ml.layout import read_dataset
from pouw.ml.requests import ScoringAnswer, ScoringReason, ScoringRequest, Share

CRASHES = 2  # of the process that scores a case, before the model is what is wrong
LOSSES = 5  # of the machine that scores a case, or of its memory, before the model is put off
_POLL_SECONDS = 0.02
_STALLED_SECONDS = 120.0


class SeatLost(MachineFailed):
    """The machine that scored is gone, or was; that says nothing about the model."""


class Scoring(Protocol):
    """Who scores models: one process, or many behind the same calls."""

    def warm(self) -> None:
        """Prepare for requests; returns at once."""
        ...

    @property
    def busy(self) -> bool:
        """Whether no further request can be taken."""
        ...

    def ask(self, request: ScoringRequest) -> None:
        """Begin one request; ProcessError where another is under way."""
        ...

    def answer(self, timeout_seconds: float = 0.0) -> ScoringAnswer | None:
        """The answer, or None while there is none; ProcessError where scoring broke down."""
        ...

    def cancel(self) -> None:
        """Let the request under way end soon, with the answer "time"."""
        ...

    def end(self) -> None:
        """Let go of everything."""
        ...


@dataclass(slots=True)
class _Run:
    """One model under way: what is still to be handed out, what came back."""

    request: ScoringRequest
    names: tuple[str, ...]
    waiting: deque[str]
    begun: float
    bound: ScoreBound
    fault: str = ""
    idle_since: float | None = None
    counts: dict[str, CaseCounts] = field(default_factory=dict)
    deaths: Counter[tuple[str, bool]] = field(default_factory=Counter)
    answers: dict[str, ScoringAnswer] = field(default_factory=dict)

    @property
    def known(self) -> tuple[CaseCounts, ...]:
        """What came back so far, in hash order."""
        return tuple(self.counts[name] for name in self.names if name in self.counts)


class ScoringPool:
    """``Scoring`` over ``seats``, each of which scores one case at a time.

    A case whose process dies is scored again, at most once: the second death is the model's.
    A seat that is lost (a machine that went away, or ran out of memory) costs nothing but its case,
    scored again, unless one case loses seat after seat.
    """

    def __init__(self, seats: Sequence[Scoring]) -> None:
        self.seats = seats
        self._run: _Run | None = None
        self._cases: dict[int, str | None] = {}
        """By seat: the case that it scores for this run; None: for one that is over."""

    def warm(self) -> None:
        """Start every seat."""
        for seat in self.seats:
            seat.warm()

    @property
    def busy(self) -> bool:
        """Whether a model is under way."""
        return self._run is not None

    def ask(self, request: ScoringRequest) -> None:
        """Begin one model; ProcessError where another is under way."""
        if self._run is not None:
            raise ProcessError(f"{self._run.request.id} is being scored")
        self._run = _Run(request, (), deque(), time.monotonic(), ScoreBound(1, None))
        try:
            files = read_dataset(request.data).test
        except DataError as error:
            self._run.fault = str(error)
            return
        names = in_hash_order((file.name for file in files), request.spec.digest())
        self._run.names, self._run.waiting = tuple(names), deque(names)
        self._run.bound = ScoreBound(max(1, len(names)), request.claim_ppm)
        if not names:
            self._run.fault = f"{request.data} holds no test case"
        self._hand_out(self._run)

    def answer(self, timeout_seconds: float = 0.0) -> ScoringAnswer | None:
        """The model's answer once its cases or the bound decide; ProcessError as a process."""
        until = time.monotonic() + timeout_seconds
        while self._run is not None:
            answer = self._advance(self._run)
            if answer is not None:
                self._finish()
                return answer
            if time.monotonic() >= until:
                return None
            time.sleep(_POLL_SECONDS)
        return None

    def cancel(self) -> None:
        """Let the model under way end with "time"."""
        if self._run is not None:
            self._run.waiting.clear()
        self._cancel_seats()

    def end(self) -> None:
        """End every seat; what they were doing is forgotten."""
        self._run = None
        self._cases.clear()
        for seat in self.seats:
            seat.end()

    def _finish(self) -> None:
        self._run = None
        self._cases = dict.fromkeys(self._cases)
        self._cancel_seats()

    def _cancel_seats(self) -> None:
        for place in self._cases:
            self.seats[place].cancel()

    def _advance(self, run: _Run) -> ScoringAnswer | None:
        if run.fault:
            return _combined(run, "data", run.fault)
        for place in list(self._cases):
            answer = self._collect(run, place)
            if answer is not None:
                return answer
        self._hand_out(run)
        if len(run.counts) == len(run.names):
            return _whole(run)
        return self._stalled(run)

    def _stalled(self, run: _Run) -> ScoringAnswer | None:
        """The answer where nothing is under way and nothing will be."""
        if any(self._cases.values()):
            run.idle_since = None
            return None
        if not run.waiting:
            return _combined(run, "time", "cancelled")
        run.idle_since = run.idle_since or time.monotonic()
        if time.monotonic() - run.idle_since < _STALLED_SECONDS:
            return None
        return _combined(run, "local", "no process is left to score with")

    def _collect(self, run: _Run, place: int) -> ScoringAnswer | None:
        """Take what a seat has; the answer for the model where that decides it."""
        try:
            answer = self.seats[place].answer()
        except ProcessError as error:
            name = self._cases.pop(place)
            if name is not None:
                self._again(run, name, error)
            return None
        if answer is None:
            return None
        name = self._cases.pop(place)
        if name is None:
            return None
        run.answers[name] = answer
        if answer.reason not in ("score", "bound"):
            return _combined(run, answer.reason, answer.detail)
        run.counts[name] = case = answer.cases[0]
        run.bound.add(None if case.failed else case.counts)
        if answer.reason == "bound" or run.bound.refuses():
            run.names = (*(other for other in run.names if other != name), name)
            best = run.bound.best_ppm()
            part = ", the last in part and its rest taken as perfect" * (answer.reason == "bound")
            detail = f"at most {best} ppm can be reached after {len(run.counts)} case(s){part}"
            return _combined(run, "bound", detail, best_ppm=best)
        return None

    def _again(self, run: _Run, name: str, error: ProcessError) -> None:
        run.waiting.appendleft(name)
        lost = isinstance(error, MachineFailed)
        run.deaths[name, lost] += 1
        if run.deaths[name, lost] == (LOSSES if lost else CRASHES):
            self._finish()
            raise error

    def _hand_out(self, run: _Run) -> None:
        for place, seat in enumerate(self.seats):
            if not run.waiting:
                return
            if place in self._cases or seat.busy:
                continue
            name = run.waiting.popleft()
            share = Share(cases=(name,), of=len(run.names), lost_ppb=run.bound.lost_ppb)
            self._cases[place] = name
            try:
                seat.ask(run.request.model_copy(update={"share": share}))
            except ProcessError as error:
                del self._cases[place]
                self._again(run, name, error)


def _whole(run: _Run) -> ScoringAnswer:
    cases = run.known
    score = score_ppm([None if case.failed else case.counts for case in cases])
    return _combined(run, "score", "", score=score)


def _combined(
    run: _Run,
    reason: ScoringReason,
    detail: str,
    *,
    score: int | None = None,
    best_ppm: int | None = None,
) -> ScoringAnswer:
    return ScoringAnswer(
        id=run.request.id,
        score_ppm=score,
        cases=run.known if reason in ("score", "bound") else (),
        reason=reason,
        detail=detail,
        milliseconds=int((time.monotonic() - run.begun) * 1000),
        software=_each(run, lambda answer: answer.software),
        device=_each(run, lambda answer: answer.device),
        best_ppm=best_ppm,
    )


def _each(run: _Run, part: Callable[[ScoringAnswer], str]) -> str:
    return "; ".join(sorted({part(answer) for answer in run.answers.values()})) or "none"


def local_scoring(processes: int, open_seat: Callable[[Path], Scoring], home: Path) -> Scoring:
    """One process as it is, several as a pool; each with a log of its own in ``home``."""
    if processes == 1:
        return open_seat(home / "scoring.log")
    return ScoringPool([open_seat(home / f"scoring-{place}.log") for place in range(processes)])
