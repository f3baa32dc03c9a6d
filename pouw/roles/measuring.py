"""What a miner's own model scores on the opened test set: the ground of its claim."""

from __future__ import annotations

from pathlib import Path

from pouw.documents import TaskSpec
from pouw.errors import ProcessError
from pouw.ml.requests import ScoringRequest
from pouw.roles.backoff import Backoff
from pouw.roles.base import Setup
from pouw.roles.scorers import Scoring
from pouw.roles.submission import Submissions
from pouw.types import RoundNumber


class Measuring:
    """Scores the committed model until every case of the test set counted.

    A score that some case failed in is a true claim, and less than the model may be worth: it is
    kept for when time runs out. What a case fails for here, or no score comes of, may be this
    machine's trouble; it is told, and the model scored again, ever more rarely.
    """

    def __init__(self, setup: Setup, submissions: Submissions, scoring: Scoring) -> None:
        self._setup = setup
        self._submissions = submissions
        self._scoring = scoring
        self._trouble = Backoff()
        self._told = ""
        self._least: dict[RoundNumber, int] = {}

    def measure(
        self, number: RoundNumber, spec: TaskSpec, data: Path, model: Path, *, late: bool
    ) -> None:
        """Do the next part; ``late``: take what there is, time leaves no other attempt."""
        asked = f"round {number}"
        self._take(number, asked, model)
        if late and number in self._least:
            self._record(number, self._least[number])
        elif self._submissions.score(number) is None and self._is_free():
            self._scoring.ask(ScoringRequest(id=asked, spec=spec, data=data, model=model))

    def _is_free(self) -> bool:
        return self._trouble.over and not self._scoring.busy

    def _take(self, number: RoundNumber, asked: str, model: Path) -> None:
        try:
            answer = self._scoring.answer()
        except ProcessError as error:
            self._fail(str(error))
            return
        if answer is None or answer.id != asked:  # of a round that ended before its answer came
            return
        failed = [case.name for case in answer.cases if case.failed]
        if answer.score_ppm is None:
            model.unlink(missing_ok=True)  # what was committed to is sound: this copy may not be
            self._fail(f"{answer.reason}: {answer.detail}")
        elif failed:
            self._least[number] = max(answer.score_ppm, self._least.get(number, 0))
            self._fail(f"{', '.join(failed)} failed; as it is, the score is {answer.score_ppm} ppm")
        else:
            self._record(number, answer.score_ppm)

    def _fail(self, why: str) -> None:
        self._trouble.fail()
        if why != self._told:
            self._told = why
            self._setup.warn(f"cannot score the own model, tries again: {why}")

    def _record(self, number: RoundNumber, score_ppm: int) -> None:
        self._scoring.end()  # its processes would take memory from the next training
        self._submissions.record_score(number, score_ppm)
        self._setup.info(
            f"measured Dice {score_ppm / 1e6:.4f} on the test set", score_ppm=score_ppm
        )
