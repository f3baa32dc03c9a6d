"""The oracle: scores the revealed models in rank order and votes for what it computed itself."""

from __future__ import annotations

import shutil

from pouw.documents import Judged, Replay
from pouw.errors import ConfigError
from pouw.events import Revealed
from pouw.roles.base import Errands, Setup, Status
from pouw.roles.capacity import OracleOptions, open_scoring
from pouw.roles.clock import ClockWatch
from pouw.roles.content import fetch_manifest
from pouw.roles.evidence import Judgement, build_evidence, unavailable
from pouw.roles.feed import Feed
from pouw.roles.judging import Judging
from pouw.roles.keeping import Keeper
from pouw.roles.opening import Openings
from pouw.roles.patience import Patience
from pouw.roles.provenance import Claim, Provenance, claim_key, drawn_plan
from pouw.roles.view import View, read_view
from pouw.roles.vote import Step, decide, weigh
from pouw.types import Address, Deadlines, RoundNumber, Task, Verdict

__all__ = ["Oracle", "OracleOptions", "Step", "check_member", "decide"]

REPLAY_CLOSING_SECONDS = 5  # of a replay that was told to stop


class Oracle:
    """One member of the committee; idempotent, resumable after a kill at any moment.

    ConfigError where the account is none.
    """

    def __init__(self, setup: Setup, options: OracleOptions, *, inline: bool = False) -> None:
        check_member(setup.arena.parameters().oracles, setup.arena.sender.address)
        self._errands = errands = Errands(setup, inline=inline)
        self._setup = setup = setup.until(self._errands.ending)
        self._options = options
        self._feed = Feed(setup.arena, setup.from_block, setup.confirmations)
        self._address: Address = setup.arena.sender.address
        self._clock = ClockWatch(setup)
        self._tidied: tuple[int, bool, tuple[Task, ...]] | None = None
        self._seen: View
        self._provenance = Provenance(setup)
        self._keeper = Keeper(setup, errands)
        self._openings = Openings(setup, errands, self._provenance)
        scoring = open_scoring(options, setup.home)
        self._judging = Judging(setup, errands, scoring, self._openings, self._provenance)

    def run_once(self) -> Status:
        """Look, decide, act; safe to call at any moment and after any crash."""
        view = read_view(self._setup.arena, self._setup.confirmations)
        self._clock.look(view)
        self._feed.poll()
        credit = self._setup.arena.credit(self._address)
        self._seek(view)
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
        self._judging.end()
        self._provenance.close()
        self._errands.close()

    def _voted(self, view: View) -> bool:
        live = view.live
        if live is None:
            return False
        seat = view.parameters.oracles.index(self._address)
        return bool(live.voted >> seat & 1)

    def _outcome(self, view: View) -> Judgement | None:
        """What to vote for; None while that is open."""
        live, task, at = view.live, view.task, view.deadlines
        if live is None or task is None or at is None or not live.opened:
            return None
        number = live.number
        patience = self._patience(view, at)

        def finding(event: Revealed) -> Judged | None:
            record = self._judging.judged(number, event)
            # Only content that is missing is given up on; what is not scored yet gets no vote.
            if record is not None or not patience.is_over:
                return record
            missing = self._judging.given_up(event)
            return None if missing is None else unavailable(event, str(missing))

        ranked = self._feed.round(number).ranked(first=task.first)
        return weigh(ranked, finding, self._openings.fault(number, task, patience))

    def _patience(self, view: View, at: Deadlines) -> Patience:
        margin_seconds = self._options.report_margin_seconds
        return Patience.of(view.now, at, view.parameters, margin_seconds)

    def _seek(self, view: View) -> None:
        """Have what tasks are judged on here and open as soon as can be."""
        live, task = view.live, view.task
        if view.selected is not None:
            self._openings.seek(view.selected, view.now)
        if live is not None and task is not None and not self._voted(view):
            self._openings.seek(task, view.now)
            self._openings.open(live.number, task, self._feed.round(live.number))

    def _act(self, step: Step, view: View, outcome: Judgement | None) -> None:
        arena, live, task = self._setup.arena, view.live, view.task
        match step:
            case Step.WAIT:
                pass
            case Step.WARM:
                self._judging.warm()
            case Step.SCORE if live and task and view.deadlines:
                patience = self._patience(view, view.deadlines)
                self._judging.judge(live.number, task, self._feed.round(live.number), patience)
            case Step.REPORT if live and task and view.deadlines and outcome:
                patience = self._patience(view, view.deadlines)
                replays = self._replays(live.number, patience, outcome)
                if replays is not None:
                    self._report(live.number, task, outcome, replays)
            case Step.FINALIZE:
                self._errands.send("close the round", arena.finalize)
            case Step.SYNC:
                self._errands.send("sync", arena.sync)
            case Step.WITHDRAW:
                self._errands.send("withdraw", lambda: arena.withdraw(self._address))

    def _tidy(self, view: View) -> None:
        """Let go of what past rounds were judged on: opened archives, and weights fetched ahead."""
        self._seen = view
        moment = (view.state.rounds, view.state.live, tuple(_needed(view)))
        if moment == self._tidied:
            return
        self._tidied = moment
        self._judging.end_round(view.live.number if view.live else None)
        self._openings.end_all_but(_needed(view))
        self._errands.prepare("let go of past rounds", self._let_go)

    def _let_go(self) -> None:
        # What is needed now, not when it was asked for: a past round may be live again.
        seen, home = self._seen, self._setup.home
        live = seen.live
        tasks = {str(task.task_id) for task in _needed(seen)}
        rounds = {str(live.number)} if live else set[str]()
        self._openings.forget(live.number if live else None)
        for folder, kept in ((home / "tasks", tasks), (home / "models", rounds)):
            for old in folder.glob("*"):
                if old.name not in kept:
                    shutil.rmtree(old, ignore_errors=True)

    def _replays(
        self, number: RoundNumber, patience: Patience, outcome: Judgement
    ) -> tuple[Replay, ...] | None:
        """What training the winner's segments again showed; None while there is time to wait."""
        opened = self._openings.of(number)
        if outcome.verdict != Verdict.WINNER or opened is None:
            return ()
        spec, train = opened.spec, opened.train
        events = self._feed.round(number)
        winner = next(one for one in events.reveals.values() if one.miner == outcome.winner)
        if spec.provenance.policy != "replay" or events.test_key is None:
            return ()
        known = self._provenance.replayed(claim_key(number, winner.miner, winner.manifest_digest))
        if known is not None or patience.is_over:
            return () if known is None else (known,)
        test_key = events.test_key
        stop_at_ms = (patience.late - REPLAY_CLOSING_SECONDS) * 1000

        def replay() -> None:
            manifest = fetch_manifest(self._setup.store, winner.manifest_digest)
            claim = Claim(number, winner.miner, spec, manifest, winner.manifest_digest)
            plan = drawn_plan(claim, test_key, train, stop_at_ms)
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


def _needed(view: View) -> list[Task]:
    """The tasks that are judged, or soon will be."""
    return [task for task in (view.task if view.live else None, view.selected) if task]


def check_member(oracles: tuple[Address, ...], address: Address) -> None:
    """ConfigError where ``address`` is not of the committee."""
    if address not in oracles:
        raise ConfigError(
            f"{address} is not of this arena's committee",
            hint="use the keystore of one of: " + ", ".join(oracles),
        )
