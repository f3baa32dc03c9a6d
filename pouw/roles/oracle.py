"""The oracle: scores the revealed models in rank order and votes for what it computed itself."""

from __future__ import annotations

import enum
import shutil
from pathlib import Path

from pouw.documents import Judged, Replay, TaskSpec
from pouw.errors import ConfigError, ContentNotFound, ProcessError
from pouw.events import Revealed
from pouw.files import of_machine
from pouw.ml.requests import ScoringAnswer, ScoringRequest
from pouw.roles.base import Errands, Setup, Status
from pouw.roles.candidates import Candidates, Missing
from pouw.roles.capacity import OracleOptions, open_scoring
from pouw.roles.content import UNUSABLE, fetch_manifest, kept_spec, open_archive
from pouw.roles.evidence import (
    NOT_TO_BE_HAD,
    Judgement,
    build_evidence,
    judged_score,
    unavailable,
)
from pouw.roles.feed import Feed, RoundEvents
from pouw.roles.keeping import Keeper
from pouw.roles.provenance import Claim, Provenance, claim_key, drawn_plan
from pouw.roles.scorers import CRASHES
from pouw.roles.view import View, read_view
from pouw.types import Address, Deadlines, Round, RoundNumber, Task, Verdict

__all__ = ["Oracle", "OracleOptions", "Step", "check_member", "decide"]

JUDGED = "judged"
MEASURED = "measured"
PATIENCE_SECONDS = 20
REPLAY_CLOSING_SECONDS = 5  # of a replay that was told to stop


class Step(enum.StrEnum):
    """What an oracle does next."""

    WAIT = "wait"
    WARM = "warm up"
    SCORE = "score revealed models"
    REPORT = "report"
    FINALIZE = "close the round"
    SYNC = "drop the selected task"
    WITHDRAW = "withdraw"


def decide(view: View, *, voted: bool, outcome: Judgement | None, credit: int) -> Step:
    """The oracle's next step; ``outcome`` is what it would vote for, once it knows."""
    live, at = view.live, view.deadlines
    if live and at and live.opened and not voted and view.now < at.t4:
        if view.confirmed < at.t3 or outcome is None:
            return Step.SCORE
        return Step.REPORT if outcome.verdict != Verdict.NONE else Step.WAIT
    if credit:
        return Step.WITHDRAW
    chore = view.chore(PATIENCE_SECONDS)
    if chore is not None:
        return Step(chore.value)
    if (view.selected and not live) or (at and at.t1 <= view.now < at.t2):
        return Step.WARM
    return Step.WAIT


class Oracle:
    """One member of the committee; idempotent, resumable after a kill at any moment.

    ConfigError where the account is none.
    """

    def __init__(self, setup: Setup, options: OracleOptions, *, inline: bool = False) -> None:
        check_member(setup.arena.parameters().oracles, setup.arena.sender.address)
        self._errands = Errands(setup, inline=inline)
        self._setup = setup = setup.until(self._errands.ending)
        self._options = options
        self._feed = Feed(setup.arena, setup.from_block, setup.confirmations)
        self._address: Address = setup.arena.sender.address
        self._scoring = open_scoring(options, setup.home)
        self._asked: Revealed | None = None
        self._crashes: dict[Revealed, int] = {}
        self._candidates: Candidates | None = None
        self._invalid: dict[RoundNumber, str] = {}
        self._absent: dict[RoundNumber, str] = {}
        self._tidied: tuple[int, bool] | None = None
        self._test_data: dict[RoundNumber, tuple[TaskSpec, Path]] = {}
        self._provenance = Provenance(setup)
        self._keeper = Keeper(setup, self._errands)

    def run_once(self) -> Status:
        """Look, decide, act; safe to call at any moment and after any crash."""
        view = read_view(self._setup.arena, self._setup.confirmations)
        self._feed.poll()
        credit = self._setup.arena.credit(self._address)
        outcome = self._outcome(view)
        step = decide(view, voted=self._voted(view), outcome=outcome, credit=credit)
        self._act(step, view, outcome)
        self._keeper.tend(self._feed, view.now)
        self._tidy(view)
        boundary = view.next_boundary()
        return Status(
            role="oracle",
            phase=view.phase,
            doing=step.value,
            next=f"{boundary[0]} in {boundary[1] - view.now} s" if boundary else "wait for a task",
            data={"round": view.state.rounds, "credit_wei": str(credit)},
        )

    def finish(self) -> None:
        """Wait for what is under way."""
        self._errands.finish()

    def close(self) -> None:
        """End the child processes."""
        self._scoring.end()
        self._provenance.close()
        self._errands.close()

    # Looking

    def _voted(self, view: View) -> bool:
        live = view.live
        if live is None:
            return False
        seat = view.parameters.oracles.index(self._address)
        return bool(live.voted >> seat & 1)

    def _outcome(self, view: View) -> Judgement | None:
        """What to vote for, as far as every reveal above it is judged; None while it is open."""
        live, task, at = view.live, view.task, view.deadlines
        if live is None or task is None or at is None or not live.opened:
            return None
        ranked = self._feed.round(live.number).ranked(first=task.first)
        if live.number in self._invalid:
            return Judgement(Verdict.INVALID, None, (), tuple(ranked), self._invalid[live.number])
        # Only content that is missing is given up on; what is merely not scored yet gets no vote.
        late = view.now >= self._late(at)
        if late and live.number in self._absent:
            absent = NOT_TO_BE_HAD + self._absent[live.number]
            return Judgement(Verdict.INVALID, None, (), tuple(ranked), absent)
        judged: list[Judged] = []
        for place, event in enumerate(ranked):
            record = self._judged(live.number, event)
            if record is None:
                missing = self._given_up(event, at)
                if not late or missing is None:
                    return None
                record = unavailable(event, str(missing))
            judged.append(record)
            if record.true_claim:
                return Judgement(
                    Verdict.WINNER, event.miner, tuple(judged), tuple(ranked[place + 1 :]), ""
                )
        verdict = Verdict.NO_TRUE_CLAIM if ranked else Verdict.NONE
        return Judgement(verdict, None, tuple(judged), (), "")

    def _late(self, at: Deadlines) -> int:
        """When what is missing is given up on."""
        return at.t4 - self._options.report_margin_seconds

    def _given_up(self, event: Revealed, at: Deadlines) -> Missing | None:
        """What still arrives then is the miner's fault where it had a quarter of the window."""
        if self._candidates is None:
            return None
        return self._candidates.given_up(event, self._late(at) - (at.t4 - at.t3) // 4)

    def _judged(self, number: RoundNumber, event: Revealed) -> Judged | None:
        value = self._setup.journal.get(JUDGED, _key(number, event))
        return None if value is None else Judged.model_validate_json(value)

    def _measured(self, number: RoundNumber, event: Revealed) -> Judged | None:
        """The finding on a claim that its score showed to be true; its checkpoints decide."""
        value = self._setup.journal.get(MEASURED, _key(number, event))
        return None if value is None else Judged.model_validate_json(value)

    # Acting

    def _act(self, step: Step, view: View, outcome: Judgement | None) -> None:
        arena = self._setup.arena
        match step:
            case Step.WAIT:
                pass
            case Step.WARM:
                self._scoring.warm()
            case Step.SCORE:
                if view.live and view.task:
                    self._score(view.live, view.task, view.now)
            case Step.REPORT:
                if view.live and view.task and view.deadlines and outcome:
                    replays = self._replays(view.live.number, view.deadlines, view.now, outcome)
                    if replays is not None:
                        self._report(view.live.number, view.task, outcome, replays)
            case Step.FINALIZE:
                self._errands.send("close the round", arena.finalize)
            case Step.SYNC:
                self._errands.send("sync", arena.sync)
            case Step.WITHDRAW:
                self._errands.send("withdraw", lambda: arena.withdraw(self._address))

    def _score(self, live: Round, task: Task, now: int) -> None:
        self._scoring.warm()
        self._take_answer(live.number)
        events = self._feed.round(live.number)
        if live.number not in self._test_data:
            self._open_task(live.number, task, events)
            return
        spec, data = self._test_data[live.number]
        candidates = self._candidates_of(live.number, task, spec, events)
        candidates.now = now
        waiting = self._not_judged(live.number, events.ranked(first=task.first))
        measured = {event: self._measured(live.number, event) for event in waiting}
        # Whether or not a model is being scored: the next one is fetched meanwhile.
        candidates.fetch(event for event in waiting if measured[event] is None)
        for event in waiting:
            found, true = candidates.found(event), measured[event]
            if true is not None:
                fault = candidates.chain_fault(event)
                if fault is not None:
                    self._record(live.number, event, _with_chain(event, true, fault))
                    if not fault:
                        return
                elif candidates.awaited(event):
                    return
            elif isinstance(found, Judged):
                self._record(live.number, event, found)
            elif found is not None:
                if not self._scoring.busy:
                    self._begin(live.number, event, spec, data, found)
                return
            elif candidates.awaited(event):
                return

    def _tidy(self, view: View) -> None:
        """Let go of what past rounds were judged on: opened archives, and weights fetched ahead."""
        moment = (view.state.rounds, view.state.live)
        if moment == self._tidied:
            return
        self._tidied = moment
        needed = [task for task in (view.task if view.live else None, view.selected) if task]
        tasks = {str(task.task_id) for task in needed}
        rounds = {str(view.live.number)} if view.live else set()
        if self._candidates is not None and str(self._candidates.number) not in rounds:
            self._end_candidates()
        home = self._setup.home

        def tidy() -> None:
            for folder, kept in ((home / "tasks", tasks), (home / "models", rounds)):
                for old in folder.glob("*"):
                    if old.name not in kept:
                        shutil.rmtree(old, ignore_errors=True)

        self._errands.prepare("let go of past rounds", tidy)

    def _not_judged(self, number: RoundNumber, ranked: list[Revealed]) -> list[Revealed]:
        """The reveals that can still change the vote: those above the first true claim."""
        waiting = []
        for event in ranked:
            record = self._judged(number, event)
            if record is None:
                waiting.append(event)
            elif record.true_claim:
                break
        return waiting

    def _candidates_of(
        self, number: RoundNumber, task: Task, spec: TaskSpec, events: RoundEvents
    ) -> Candidates:
        assert events.data_key is not None
        if self._candidates is None or self._candidates.number != number:
            self._end_candidates()
            self._candidates = Candidates(
                self._setup,
                self._errands,
                number,
                task,
                spec,
                self._provenance,
                events.data_key,
                self._keeper,
            )
        return self._candidates

    def _end_candidates(self) -> None:
        if self._candidates is not None:
            self._candidates.end()
            self._candidates = None

    def _open_task(self, number: RoundNumber, task: Task, events: RoundEvents) -> None:
        """Open spec and both archives; what the publisher sealed wrongly makes the task invalid."""
        data_key, test_key = events.data_key, events.test_key
        if data_key is None or test_key is None:
            return
        folder = self._setup.home / "tasks" / str(task.task_id)

        def open_all() -> None:
            store = self._setup.store
            try:
                spec = kept_spec(store, task.spec_digest, folder)
                open_archive(store, spec, "train", data_key, task.key_hash, folder)
                opened = open_archive(store, spec, "test", test_key, task.key_hash, folder)
            except UNUSABLE as error:
                if of_machine(error):
                    raise
                self._invalid[number] = str(error)
                self._setup.warn(f"task {task.task_id} is invalid: {error}", task=task.task_id)
            except ContentNotFound as error:
                self._absent[number] = str(error)
                raise
            else:
                self._absent.pop(number, None)
                self._test_data[number] = (spec, opened)
                self._provenance.warm(spec)

        self._errands.prepare(f"open the data of task {task.task_id}", open_all)

    def _begin(
        self, number: RoundNumber, event: Revealed, spec: TaskSpec, data: Path, model: Path
    ) -> None:
        self._asked = event
        self._scoring.ask(
            ScoringRequest(
                id=_key(number, event),
                spec=spec,
                data=data,
                model=model,
                claim_ppm=event.claimed_score,
            )
        )

    def _take_answer(self, number: RoundNumber) -> None:
        event = self._asked
        if event is not None and event.round != number:
            self._scoring.cancel()
        try:
            answer = self._scoring.answer()
        except ProcessError as error:
            self._asked = None
            if event is not None:
                self._crashed(event, error)
            return
        if answer is None or event is None:
            return
        self._asked = None
        if answer.reason in ("score", "bound", "caps", "model"):
            self._scored(event, _from_answer(event, answer))
        elif answer.reason == "data":
            self._invalid[event.round] = answer.detail
            self._setup.warn(f"the test set of round {event.round} is unusable: {answer.detail}")
        elif event.round == number:
            self._setup.warn(f"cannot score {event.miner}: {answer.reason}: {answer.detail}")

    def _scored(self, event: Revealed, judged: Judged) -> None:
        """Where checkpoints are due, a claim that holds by its score is true once they hold."""
        spec, _ = self._test_data[event.round]
        if judged.true_claim and spec.provenance.policy != "none":
            self._setup.journal.put(MEASURED, _key(event.round, event), judged.model_dump_json())
        else:
            self._record(event.round, event, judged)

    def _crashed(self, event: Revealed, error: ProcessError) -> None:
        """Once may be the machine; the second time the model is at fault."""
        self._setup.warn(str(error))
        self._crashes[event] = self._crashes.get(event, 0) + 1
        if self._crashes[event] == CRASHES:
            judged = judged_score(event, None, "model", str(error), ())
            self._record(event.round, event, judged)

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

    def _replays(
        self, number: RoundNumber, at: Deadlines, now: int, outcome: Judgement
    ) -> tuple[Replay, ...] | None:
        """What training the winner's segments again showed; None while there is time to wait."""
        if outcome.verdict != Verdict.WINNER or number not in self._test_data:
            return ()
        spec, data = self._test_data[number]
        events = self._feed.round(number)
        winner = next(one for one in events.reveals.values() if one.miner == outcome.winner)
        if spec.provenance.policy != "replay" or events.test_key is None:
            return ()
        known = self._provenance.replayed(_key(number, winner))
        ends = self._late(at)
        if known is not None or now >= ends:
            return () if known is None else (known,)
        test_key, stop_at_ms = events.test_key, (ends - REPLAY_CLOSING_SECONDS) * 1000

        def replay() -> None:
            manifest = fetch_manifest(self._setup.store, winner.manifest_digest)
            claim = Claim(number, winner.miner, spec, manifest, winner.manifest_digest)
            plan = drawn_plan(claim, test_key, data.parent / "train", stop_at_ms)
            self._provenance.replay(claim, plan)

        self._errands.prepare(f"train segments of {winner.miner} again", replay)
        return None

    def _report(
        self, number: RoundNumber, task: Task, outcome: Judgement, replays: tuple[Replay, ...]
    ) -> None:
        evidence = build_evidence(number, task, self._address, outcome, replays)

        def send() -> None:
            cid = self._setup.store.put_bytes(evidence.encode())
            self._setup.store.pin(cid)
            self._setup.arena.report(
                number, outcome.verdict, outcome.winner_or_zero, evidence.digest()
            )
            self._setup.info(f"voted {evidence.verdict} in round {number}", evidence=cid)

        self._errands.send(f"report on round {number}", send)


def _key(number: RoundNumber, event: Revealed) -> str:
    return claim_key(number, event.miner, event.manifest_digest)


def _with_chain(event: Revealed, true: Judged, fault: str) -> Judged:
    return judged_score(event, None, "manifest", fault, ()) if fault else true


def _from_answer(event: Revealed, answer: ScoringAnswer) -> Judged:
    reason = answer.reason if answer.reason in ("bound", "caps", "model") else "score"
    return judged_score(event, answer.score_ppm, reason, answer.detail, answer.cases)


def check_member(oracles: tuple[Address, ...], address: Address) -> None:
    """ConfigError where ``address`` is not of the committee."""
    if address not in oracles:
        raise ConfigError(
            f"{address} is not of this arena's committee",
            hint="use the keystore of one of: " + ", ".join(oracles),
        )
