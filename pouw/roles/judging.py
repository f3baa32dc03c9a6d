"""Revealed models judged: fetched, scored, their checkpoints checked, and what came of it kept."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pouw.documents import Judged, TaskSpec
from pouw.errors import ProcessError
from pouw.events import Revealed
from pouw.ml.requests import ScoringAnswer, ScoringRequest
from pouw.roles.base import RETRY_SECONDS, Errands, Setup
from pouw.roles.candidates import Candidates, Missing
from pouw.roles.evidence import judged_score
from pouw.roles.feed import RoundEvents
from pouw.roles.keeping import Keeper
from pouw.roles.opening import Opened, Openings
from pouw.roles.patience import Patience
from pouw.roles.processes import Crashed
from pouw.roles.provenance import Provenance, claim_key
from pouw.roles.scorers import Scoring
from pouw.types import RoundNumber, Task

JUDGED = "judged"
MEASURED = "measured"
_USABLE = "usable"
_LONGEST_PAUSE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class _Pause:
    """Until when (monotonic) not to try again what this machine could not do, and why not."""

    until: float
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is being scored; ``event`` None: the task itself is looked at, before any model."""

    number: RoundNumber
    event: Revealed | None
    opened: Opened


class Judging:
    """The reveals of the live round on their way to a finding; findings are in the journal.

    ``openings`` and ``provenance`` are the oracle's, which ends them.
    """

    def __init__(
        self,
        setup: Setup,
        errands: Errands,
        scoring: Scoring,
        openings: Openings,
        provenance: Provenance,
    ) -> None:
        self._setup = setup
        self._errands = errands
        self._scoring = scoring
        self._openings = openings
        self._provenance = provenance
        self._keeper = Keeper(setup, errands)
        self._asked: _Asked | None = None
        self._pauses: dict[Revealed | RoundNumber, _Pause] = {}
        self._candidates: Candidates | None = None

    def warm(self) -> None:
        """Prepare for models; returns at once."""
        self._scoring.warm()

    def end(self) -> None:
        """End the processes that score."""
        self._scoring.end()

    def end_round(self, live: RoundNumber | None) -> None:
        """Break off what is fetched for another round than the ``live`` one."""
        if self._candidates is not None and self._candidates.number != live:
            self._end_candidates()

    def judged(self, number: RoundNumber, event: Revealed) -> Judged | None:
        """The finding on a reveal, once there is one."""
        value = self._setup.journal.get(JUDGED, _key(number, event))
        return None if value is None else Judged.model_validate_json(value)

    def given_up(self, event: Revealed) -> Missing | None:
        """As `Candidates` has it."""
        return None if self._candidates is None else self._candidates.given_up(event)

    def judge(
        self, number: RoundNumber, task: Task, events: RoundEvents, patience: Patience
    ) -> None:
        """Do the next part of what there is to do, once the data of the round are open."""
        self._scoring.warm()
        self._take_answer(number)
        if self._openings.fault(number, task, patience) is not None:
            return
        opened = self._openings.of(number)
        if opened is None:
            return
        candidates = self._candidates_of(number, task, opened, events, patience)
        candidates.patience = patience
        waiting = self._not_judged(number, events.ranked(first=task.first))
        measured = {event: self._measured(number, event) for event in waiting}
        # Whether or not a model is being scored: the next one is fetched meanwhile.
        candidates.fetch(
            event for event in waiting if measured[event] is None and not self._pauses_now(event)
        )
        if not self._usable(number, opened):
            return
        for event in waiting:
            if self._pauses_now(event):
                continue
            found, true = candidates.found(event), measured[event]
            if true is not None:
                fault = candidates.chain_fault(event)
                if fault is not None:
                    self._record(number, event, _with_chain(event, true, fault))
                    if not fault:
                        return
                elif candidates.awaited(event):
                    return
            elif isinstance(found, Judged):
                self._record(number, event, found)
            elif found is not None:
                self._ask(
                    _Asked(number, event, opened),
                    ScoringRequest(
                        id=_key(number, event),
                        spec=opened.spec,
                        data=opened.test,
                        model=found,
                        claim_ppm=event.claimed_score,
                    ),
                )
                return
            elif candidates.awaited(event):
                return

    def _usable(self, number: RoundNumber, opened: Opened) -> bool:
        """Whether the task can be judged on, which must not hang on who claims what.

        That is, its network runs and every test case can be read and prepared; else asks.
        """
        if self._setup.journal.get(_USABLE, opened.spec.digest().hex()) is not None:
            return True
        if not self._pauses_now(number):
            name = f"the task of round {number}"
            request = ScoringRequest(id=name, spec=opened.spec, data=opened.test, model=None)
            if self._ask(_Asked(number, None, opened), request):
                self._setup.info(f"looks at all {opened.spec.test.cases} test cases of {name}")
        return False

    def _ask(self, asked: _Asked, request: ScoringRequest) -> bool:
        """Have that scored, unless something is."""
        if self._scoring.busy:
            return False
        self._asked = asked
        self._scoring.ask(request)
        return True

    def _measured(self, number: RoundNumber, event: Revealed) -> Judged | None:
        """The finding on a claim that its score showed to be true; its checkpoints decide."""
        value = self._setup.journal.get(MEASURED, _key(number, event))
        return None if value is None else Judged.model_validate_json(value)

    def _not_judged(self, number: RoundNumber, ranked: list[Revealed]) -> list[Revealed]:
        """The reveals that can still change the vote: those above the first true claim."""
        waiting = []
        for event in ranked:
            record = self.judged(number, event)
            if record is None:
                waiting.append(event)
            elif record.true_claim:
                break
        return waiting

    def _candidates_of(
        self,
        number: RoundNumber,
        task: Task,
        opened: Opened,
        events: RoundEvents,
        patience: Patience,
    ) -> Candidates:
        assert events.data_key is not None
        if self._candidates is None or self._candidates.number != number:
            self._end_candidates()
            self._candidates = Candidates(
                self._setup,
                self._errands,
                number,
                task,
                opened.spec,
                self._provenance,
                events.data_key,
                self._keeper,
                patience,
            )
        return self._candidates

    def _end_candidates(self) -> None:
        if self._candidates is not None:
            self._candidates.end()
            self._candidates = None

    def _take_answer(self, number: RoundNumber) -> None:
        if self._asked is not None and self._is_past(number, self._asked):
            self._scoring.cancel()
        try:
            answer: ScoringAnswer | ProcessError | None = self._scoring.answer()
        except ProcessError as error:
            answer = error
        if answer is None or self._asked is None:
            return
        asked, self._asked = self._asked, None
        # Its files may have been let go of while they were looked at, which is nobody's fault.
        if self._is_past(number, asked):
            return
        if isinstance(answer, ProcessError):
            self._broken_down(asked, answer)
        elif answer.reason == "data":
            self._openings.refuse(number, answer.detail)
        elif answer.reason == "usable":
            self._setup.journal.put(_USABLE, asked.opened.spec.digest().hex(), True)
            seconds = answer.milliseconds // 1000
            self._setup.info(f"all test cases of round {number} can be used ({seconds} s)")
        elif asked.event is not None and answer.reason in ("score", "bound", "caps", "model"):
            self._scored(asked.event, asked.opened.spec, _from_answer(asked.event, answer))
        else:
            self._pause(asked, f"{answer.reason}: {answer.detail}")

    def _is_past(self, number: RoundNumber, asked: _Asked) -> bool:
        """Whether that is of another round, or of this one before it was closed for a while."""
        return asked.number != number or self._openings.of(number) is not asked.opened

    def _broken_down(self, asked: _Asked, error: ProcessError) -> None:
        """What a crash is held against: the model, or the task where there was no model yet."""
        if not isinstance(error, Crashed):
            self._pause(asked, str(error))
        elif asked.event is None:
            self._openings.refuse(asked.number, str(error))
        else:
            judged = judged_score(asked.event, None, "model", str(error), ())
            self._record(asked.number, asked.event, judged)

    def _scored(self, event: Revealed, spec: TaskSpec, judged: Judged) -> None:
        """Where checkpoints are due, a claim that holds by its score is true once they hold."""
        if judged.true_claim and spec.provenance.policy != "none":
            self._setup.journal.put(MEASURED, _key(event.round, event), judged.model_dump_json())
        else:
            self._record(event.round, event, judged)

    def _pause(self, asked: _Asked, why: str) -> None:
        """This machine cannot tell, now: what is ranked below comes first, and then it again."""
        what, who = (
            (asked.number, f"the test set of round {asked.number}")
            if asked.event is None
            else (asked.event, str(asked.event.miner))
        )
        last = self._pauses.get(what)
        seconds = RETRY_SECONDS if last is None else min(2 * last.seconds, _LONGEST_PAUSE_SECONDS)
        self._pauses[what] = _Pause(time.monotonic() + seconds, seconds, why)
        if last is None or last.why != why:
            self._setup.warn(f"cannot score {who}: {why}")

    def _pauses_now(self, what: Revealed | RoundNumber) -> bool:
        pause = self._pauses.get(what)
        return pause is not None and time.monotonic() < pause.until

    def _record(self, number: RoundNumber, event: Revealed, judged: Judged) -> None:
        self._setup.journal.put(JUDGED, _key(number, event), judged.model_dump_json())
        if self._candidates is not None:
            self._candidates.drop(event)
        found = "no score" if judged.score_ppm is None else f"{judged.score_ppm / 1e6:.4f}"
        if judged.reason == "bound":
            found = f"less ({judged.detail})"
        self._setup.info(
            f"round {number}: {event.miner} claims {event.claimed_score / 1e6:.4f}, "
            f"measured {found}: {'true' if judged.true_claim else 'false'}",
            miner=event.miner,
            true_claim=judged.true_claim,
        )


def _key(number: RoundNumber, event: Revealed) -> str:
    return claim_key(number, event.miner, event.manifest_digest)


def _with_chain(event: Revealed, true: Judged, fault: str) -> Judged:
    return judged_score(event, None, "manifest", fault, ()) if fault else true


def _from_answer(event: Revealed, answer: ScoringAnswer) -> Judged:
    reason = answer.reason if answer.reason in ("bound", "caps", "model") else "score"
    return judged_score(event, answer.score_ppm, reason, answer.detail, answer.cases)
