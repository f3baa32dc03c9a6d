"""The miner: trains through Phase 1, commits early, reveals what it measured itself."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pouw.errors import ConfigError
from pouw.ml.requests import Snapshot
from pouw.roles.base import Errands, Setup, Status
from pouw.roles.clock import ClockWatch
from pouw.roles.feed import Feed
from pouw.roles.means import check_means
from pouw.roles.measuring import Measuring
from pouw.roles.outcome import tell_miner
from pouw.roles.processes import ScoringProcess
from pouw.roles.scorers import local_scoring
from pouw.roles.submission import Submission, Submissions
from pouw.roles.trainer import MinerOptions, Trainer
from pouw.roles.view import View, read_view
from pouw.types import EntryState, RoundNumber, Task

PATIENCE_SECONDS = 15
LATE_SHARE = 3  # the last third of the reveal window is for revealing
ROUND_GAS = 400_000  # of a few commitments and the reveal
GPU = Path("/dev/nvidiactl")  # importing torch to ask takes seconds
COLLAPSE_PPM = 100_000  # of validation Dice below the best: training went astray

__all__ = ["Miner", "MinerOptions", "Progress", "Step", "choose_snapshot", "decide"]


class Step(enum.StrEnum):
    """What a miner does next."""

    WAIT = "wait"
    PREFETCH = "fetch the sealed data"
    TRAIN = "train"
    COMMIT = "commit"
    SCORE = "score the model on the opened test set"
    REVEAL = "reveal"
    RECLAIM = "reclaim the bond"
    FINALIZE = "close the round"
    SYNC = "drop the selected task"
    WITHDRAW = "withdraw"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a miner has of its own, beside the view of the arena.

    ``better``: a snapshot to commit instead of what the chain holds; ``committed``: what the
    unrevealed commitment on chain binds; ``claim_ppm``: what it would claim, once measured;
    ``unsettled``: closed rounds with a bond to reclaim; ``credit_wei``: what can be withdrawn.
    """

    better: Snapshot | None
    committed: Submission | None
    claim_ppm: int | None
    unsettled: tuple[RoundNumber, ...]
    credit_wei: int


def decide(view: View, mine: Progress) -> Step:
    """The miner's next step; everything it needs is in the arguments."""
    at, live, task = view.deadlines, view.live, view.task
    if live and at and task:
        if view.contract_now < at.t1:
            return Step.COMMIT if mine.better else Step.TRAIN
        if mine.committed and live.opened and view.contract_now < at.t3:
            if mine.claim_ppm is None:
                return Step.SCORE
            if mine.claim_ppm >= task.min_score:
                return Step.REVEAL
    if mine.unsettled:
        return Step.RECLAIM
    if mine.credit_wei:
        return Step.WITHDRAW
    chore = view.chore(PATIENCE_SECONDS)
    if chore is not None:
        return Step(chore.value)
    return Step.PREFETCH if view.selected else Step.WAIT


def choose_snapshot(
    snapshots: list[Snapshot],
    committed: Submission | None,
    *,
    first: bool,
    min_score: int,
    final: bool,
) -> Snapshot | None:
    """The snapshot to commit now, if there is a better one than the chain holds.

    Training anneals, so the latest is the best (as nnU-Net takes its final checkpoint): a few
    validation cases cannot rank neighbours, they only tell one that collapsed. A commitment is
    overwritten once training has doubled since, and with the ``final`` snapshot. Where the earliest
    commit wins (``first``), the one that first promises ``min_score`` is committed, for good; where
    none does, the final one, since not revealing costs nothing.
    """
    reached = 0 if committed is None else committed.step
    if first:
        good = [one for one in snapshots if one.validation_dice_ppm >= min_score]
        if good:
            return good[0] if good[0].step > reached else None
        if not final:
            return None
    best: dict[int, int] = {}
    """Of what was validated on so many cases: fewer are no easier or harder, but others."""
    for one in snapshots:
        cases = one.validation_cases
        best[cases] = max(one.validation_dice_ppm, best.get(cases, 0))
    sound = [
        one
        for one in snapshots
        if one.validation_dice_ppm >= best[one.validation_cases] - COLLAPSE_PPM
    ]
    if not sound or sound[-1].step <= reached:
        return None
    return sound[-1] if final or sound[-1].step >= 2 * reached else None


def measuring_processes(options: MinerOptions) -> int:
    """As many as train on processors; a GPU is one device, however many cores feed it."""
    on_gpu = options.device == "cuda" or (options.device == "auto" and GPU.exists())
    return 1 if on_gpu else options.threads * options.processes


class Miner:
    """One miner's account on one machine; idempotent, resumable after a kill at any moment."""

    def __init__(self, setup: Setup, options: MinerOptions, *, inline: bool = False) -> None:
        self._errands = Errands(setup, inline=inline)
        self._setup = setup = setup.until(self._errands.ending)
        self._options = options
        self._feed = Feed(setup.arena, setup.from_block, setup.confirmations)
        self._trainer = Trainer(setup, options, self._errands)
        self._submissions = Submissions(setup, self._errands)
        self._scoring = local_scoring(
            measuring_processes(options),
            lambda log: ScoringProcess(log, options.device),
            setup.home,
        )
        self._clock = ClockWatch(setup)
        self._measuring = Measuring(setup, self._submissions, self._scoring)
        self._means_seen_in: RoundNumber | None = None
        self._look_at_means(owed_wei=0)

    def run_once(self) -> Status:
        """Look, decide, act; safe to call at any moment and after any crash."""
        view = read_view(self._setup.arena, self._setup.confirmations)
        self._clock.look(view)
        self._feed.poll()
        self._trainer.follow(view)
        self._let_go(view)
        mine = self._progress(view)
        step = decide(view, mine)
        self._act(step, view, mine)
        self._submissions.tend(self._feed, view.now)
        tell_miner(self._setup, self._feed)
        boundary = view.next_boundary()
        return Status(
            role="miner",
            phase=view.phase,
            doing=step.value,
            next=f"{boundary[0]} in {boundary[1] - view.now} s" if boundary else "wait for a task",
            data=self._facts(view, mine),
        )

    def finish(self) -> None:
        """Wait for what is under way."""
        self._errands.finish()

    def close(self) -> None:
        """End the child processes; what they wrote is taken up by the next start."""
        self._trainer.end()
        self._scoring.end()
        self._errands.close()

    def claim_of(self, measured_ppm: int) -> int:
        """What to claim for a model that this machine measured at ``measured_ppm``."""
        return max(0, measured_ppm - self._options.margin_ppm)

    def _look_at_means(self, owed_wei: int) -> None:
        """Warn while there is time: the bond is due with the reveal, after all the training."""
        arena = self._setup.arena
        try:
            check_means(arena, max(0, arena.parameters().miner_bond - owed_wei), ROUND_GAS)
        except ConfigError as error:
            self._setup.warn(f"cannot leave the miner's bond: {error}", hint=error.hint)

    def _progress(self, view: View) -> Progress:
        number, task = RoundNumber(view.state.rounds), view.task
        address = self._setup.arena.sender.address
        committed: Submission | None = None
        better: Snapshot | None = None
        if number and task and view.live:
            entry = self._setup.arena.entry(number, address)
            if entry.state is EntryState.COMMITTED:
                committed = self._submissions.committed(number)
            better = choose_snapshot(
                self._trainer.snapshots(number),
                self._submissions.last(number),
                first=task.first,
                min_score=task.min_score,
                final=self._trainer.ended(view),
            )
        measured = self._submissions.score(number)
        return Progress(
            better=better,
            committed=committed,
            claim_ppm=None if measured is None else self.claim_of(measured),
            unsettled=tuple(self._submissions.unsettled(self._feed, view.state.live_round)),
            credit_wei=self._setup.arena.credit(address),
        )

    def _facts(self, view: View, mine: Progress) -> dict[str, Any]:
        facts: dict[str, Any] = {"round": view.state.rounds, "credit_wei": str(mine.credit_wei)}
        snapshots = self._trainer.snapshots(view.live.number) if view.live else []
        if snapshots:
            facts["step"] = snapshots[-1].step
            facts["validation_dice_ppm"] = snapshots[-1].validation_dice_ppm
        if mine.claim_ppm is not None:
            facts["claim_ppm"] = mine.claim_ppm
        return facts

    def _act(self, step: Step, view: View, mine: Progress) -> None:
        arena, live, task = self._setup.arena, view.live, view.task
        match step:
            case Step.WAIT:
                pass
            case Step.PREFETCH:
                self._prefetch(view)
            case Step.TRAIN | Step.COMMIT if live and task:
                if self._means_seen_in != live.number:
                    owed_wei = len(mine.unsettled) * view.parameters.miner_bond + mine.credit_wei
                    self._look_at_means(owed_wei)
                    self._means_seen_in = live.number
                self._trainer.train(view, self._feed.round(live.number).data_key)
                self._submit(live.number, task, mine.better)
            case Step.SCORE if mine.committed:
                self._measure(view, mine.committed)
                self._settle(mine)
            case Step.REVEAL if live and task and mine.committed and mine.claim_ppm is not None:
                spec = self._trainer.data.spec(task)
                self._submissions.reveal(live.number, spec, mine.committed, mine.claim_ppm)
                self._settle(mine)
            case Step.RECLAIM | Step.WITHDRAW:
                self._settle(mine)
                self._prefetch(view)  # blocks may make a transaction wait, the next round does not
            case Step.FINALIZE:
                self._errands.send("close the round", arena.finalize)
            case Step.SYNC:
                self._errands.send("sync", arena.sync)

    def _submit(self, number: RoundNumber, task: Task, better: Snapshot | None) -> None:
        snapshots = self._trainer.snapshots(number)
        if not snapshots:
            return
        spec = self._trainer.data.spec(task)
        self._submissions.keep(number, spec, snapshots)
        if better:
            self._submissions.commit(number, task, spec, self._trainer.out(number), better)
        else:
            self._submissions.thin_out(number, task, snapshots)

    def _settle(self, mine: Progress) -> None:
        """Take out what lies in the arena: the bond of a reveal may have to come of it."""
        arena = self._setup.arena
        for number in mine.unsettled:
            self._submissions.reclaim(number)
        if mine.credit_wei and not mine.unsettled:
            self._errands.send("withdraw", lambda: arena.withdraw(arena.sender.address))

    def _prefetch(self, view: View) -> None:
        if view.selected and view.opens:
            self._trainer.prefetch(view.selected, view.opens)
            self._scoring.seats[0].warm()  # all of them would take memory from the training

    def _let_go(self, view: View) -> None:
        needed = (view.task if view.live else None, view.selected)
        self._trainer.data.keep_only({task.task_id for task in needed if task}, self._feed.over)

    def _measure(self, view: View, submission: Submission) -> None:
        live, task, at = view.live, view.task, view.deadlines
        if live is None or task is None or at is None:
            return
        key = self._feed.round(live.number).test_key
        if key is None:
            return
        self._scoring.warm()
        data = self._trainer.data.opened(task, "test", key)
        model = self._submissions.model(live.number, submission)
        if data is None or model is None:
            return
        late = view.now >= at.t3 - view.parameters.reveal_window // LATE_SHARE
        spec = self._trainer.data.spec(task)
        self._measuring.measure(live.number, spec, data, model, late=late)
