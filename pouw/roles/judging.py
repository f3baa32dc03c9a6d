"""Revealed models judged: fetched, scored, their checkpoints checked, and what came of it kept."""

from __future__ import annotations

from pouw.documents import Judged, TaskSpec
from pouw.errors import MachineFailed, ProcessError
from pouw.events import Revealed
from pouw.ml.requests import ScoringAnswer, ScoringRequest
from pouw.roles.backoff import Backoff
from pouw.roles.base import Errands, Setup
from pouw.roles.candidates import Candidates, Missing
from pouw.roles.evidence import judged_score
from pouw.roles.feed import RoundEvents
from pouw.roles.keeping import Keeper
from pouw.roles.opening import Opened, Openings
from pouw.roles.provenance import Provenance, claim_key
from pouw.roles.scorers import CRASHES, Scoring
from pouw.types import RoundNumber, Task

JUDGED = "judged"
MEASURED = "measured"


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
        self._asked: tuple[Revealed, Opened] | None = None
        self._crashes: dict[Revealed, int] = {}
        self._trouble = Backoff()
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

    def given_up(self, event: Revealed, begun_by: int) -> Missing | None:
        """As `Candidates` has it."""
        return None if self._candidates is None else self._candidates.given_up(event, begun_by)

    def judge(self, number: RoundNumber, task: Task, events: RoundEvents, now: int) -> None:
        """Do the next part of what there is to do; ``now`` on the chain's clock."""
        self._scoring.warm()
        self._take_answer(number)
        opened = self._openings.of(number)
        if opened is None:
            self._openings.open(number, task, events)
            return
        candidates = self._candidates_of(number, task, opened, events)
        candidates.now = now
        waiting = self._not_judged(number, events.ranked(first=task.first))
        measured = {event: self._measured(number, event) for event in waiting}
        # Whether or not a model is being scored: the next one is fetched meanwhile.
        candidates.fetch(event for event in waiting if measured[event] is None)
        for event in waiting:
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
                if not self._scoring.busy and self._trouble.over:
                    self._asked = (event, opened)
                    self._scoring.ask(
                        ScoringRequest(
                            id=_key(number, event),
                            spec=opened.spec,
                            data=opened.test,
                            model=found,
                            claim_ppm=event.claimed_score,
                        )
                    )
                return
            elif candidates.awaited(event):
                return

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
        self, number: RoundNumber, task: Task, opened: Opened, events: RoundEvents
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
            )
        return self._candidates

    def _end_candidates(self) -> None:
        if self._candidates is not None:
            self._candidates.end()
            self._candidates = None

    def _take_answer(self, number: RoundNumber) -> None:
        if self._asked is not None and self._is_past(number, *self._asked):
            self._scoring.cancel()
        try:
            answer: ScoringAnswer | ProcessError | None = self._scoring.answer()
        except ProcessError as error:
            answer = error
        if answer is None or self._asked is None:
            return
        (event, opened), self._asked = self._asked, None
        # Its files may have been let go of while they were looked at, which is nobody's fault.
        if self._is_past(number, event, opened):
            return
        if isinstance(answer, ProcessError):
            self._crashed(event, answer)
        elif answer.reason in ("score", "bound", "caps", "model"):
            self._scored(event, opened.spec, _from_answer(event, answer))
        elif answer.reason == "data":
            self._openings.refuse(event.round, answer.detail)
        else:
            self._put_off(event, f"{answer.reason}: {answer.detail}")

    def _is_past(self, number: RoundNumber, event: Revealed, opened: Opened) -> bool:
        """Whether that is of another round, or of this one before it was closed for a while."""
        return event.round != number or self._openings.of(number) is not opened

    def _scored(self, event: Revealed, spec: TaskSpec, judged: Judged) -> None:
        """Where checkpoints are due, a claim that holds by its score is true once they hold."""
        if judged.true_claim and spec.provenance.policy != "none":
            self._setup.journal.put(MEASURED, _key(event.round, event), judged.model_dump_json())
        else:
            self._record(event.round, event, judged)

    def _crashed(self, event: Revealed, error: ProcessError) -> None:
        """Once may be the machine; the second time the model is at fault."""
        if isinstance(error, MachineFailed):
            self._put_off(event, str(error))
            return
        self._setup.warn(str(error))
        self._crashes[event] = self._crashes.get(event, 0) + 1
        if self._crashes[event] == CRASHES:
            judged = judged_score(event, None, "model", str(error), ())
            self._record(event.round, event, judged)

    def _put_off(self, event: Revealed, why: str) -> None:
        """This machine's trouble: it says nothing about the model, which is scored again."""
        self._setup.warn(f"cannot score {event.miner}: {why}")
        self._trouble.fail()

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
