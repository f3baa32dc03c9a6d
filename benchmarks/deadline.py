"""Does a miner ever miss the end of Phase 1, and how much of it goes to waste?

``python -m benchmarks.deadline`` draws 100,000 rounds with the planner that miners run and with the
paper's rule (time one epoch, plan whole ones), under the same step times, stalls and blocks. With
``--live 20`` it also plays rounds on anvil with a real miner, a real training and short phases.

A round is missed where no commitment of it is on chain before t1, early where only that of an early
snapshot is, late where only the last one is missing and the one for insurance stands. The paper's
rule commits once, so late is missed. Idle is what of Phase 1 no optimiser step ran in. ``--drift``
is how much the pace after the first epoch differs from it (standard deviation of the logarithm).
The last line is one line of JSON; exit code 1 on a miss.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.live_rounds import play
from pouw.ml.planning import (
    PlanningPolicy,
    StepPlanner,
    insurance_seconds,
    last_call_seconds,
    whole_epochs,
)

PHASE_MS: Final = 1_800_000.0
FIRST_SNAPSHOT_MS: Final = 20_000.0
BLOCK_SECONDS: Final = (1, 2, 12)
CHUNK: Final = 512
# Stalls of the whole machine: about one in ten minutes, half of them longer than a second, one in a
# hundred longer than ten.
STALL_EVERY_MS: Final = 600_000.0
STALL_MEDIAN_MS, STALL_SPREAD = 1_000.0, 1.0
MISSED_SLOTS: Final = 0.01
PASSED_OVER: Final = 0.02
SPREADING_MS: Final = (200.0, 1_500.0)
SEALING_MS: Final = (100.0, 1_200.0)


@dataclass(frozen=True)
class Scene:
    """What one round is like; durations in milliseconds, before jitter."""

    step_ms: float
    steps_per_epoch: int
    jitter: float
    drift: float
    closing_ms: float
    block_ms: float
    offset_ms: float


class Dice:
    """Random numbers of one round, drawn in chunks since single draws are slow."""

    def __init__(self, random: np.random.Generator, scene: Scene) -> None:
        self._random = random
        self._scene = scene
        self._factors: list[float] = []

    def lasting(self, milliseconds: float) -> float:
        """How long something takes that usually takes so long."""
        if not self._factors:
            spread = self._scene.jitter
            self._factors = np.exp(self._random.normal(0.0, spread, CHUNK)).tolist()
        return milliseconds * self._factors.pop() + self.stalled(milliseconds)

    def stalled(self, milliseconds: float) -> float:
        """How long the machine stands still in such a time."""
        if self._random.random() >= milliseconds / STALL_EVERY_MS:
            return 0.0
        return STALL_MEDIAN_MS * math.exp(self._random.normal(0.0, STALL_SPREAD))

    def included_ms(self, snapshot_ms: float) -> float:
        """When the commitment of a snapshot that is complete at that time is in a block."""
        scene = self._scene
        ready = snapshot_ms + self._random.uniform(*SEALING_MS) + self.stalled(SEALING_MS[1])
        ready += self._random.uniform(*SPREADING_MS)
        slot = math.ceil((ready - scene.offset_ms) / scene.block_ms)
        while self._random.random() < MISSED_SLOTS + PASSED_OVER:
            slot += 1
        return scene.offset_ms + slot * scene.block_ms


@dataclass(frozen=True)
class Outcome:
    """What is on chain before t1: ``missed`` nothing, ``early`` the commitment of a first snapshot,
    ``late`` that of the one for insurance.
    """

    missed: bool
    early: bool
    late: bool
    idle_ms: float


def draw_scene(random: np.random.Generator, drift: float) -> Scene:
    """Steps of 10 ms to 2 s, epochs of 20 to 2,000 of them, snapshots of 0.1 to 3 s."""
    block_ms = 1_000.0 * float(random.choice(BLOCK_SECONDS))
    return Scene(
        step_ms=float(np.exp(random.uniform(math.log(10), math.log(2_000)))),
        steps_per_epoch=int(np.exp(random.uniform(math.log(20), math.log(2_000)))),
        jitter=float(random.uniform(0.02, 0.3)),
        drift=float(np.exp(random.normal(0.0, drift))),
        closing_ms=float(np.exp(random.uniform(math.log(100), math.log(3_000)))),
        block_ms=block_ms,
        offset_ms=0.0,
    )


def planned_step_by_step(scene: Scene, random: np.random.Generator) -> Outcome:
    """A round of the miner's planner.

    It remembers ``window`` durations of each kind, so what came before those is not played; the
    planner sees exactly what it would have seen.
    """
    dice, policy = Dice(random, scene), PlanningPolicy()
    block_seconds = scene.block_ms / 1_000
    stop_ms = PHASE_MS - 1_000 * last_call_seconds(block_seconds)
    insured_ms = stop_ms - 1_000 * insurance_seconds(block_seconds)
    planner = StepPlanner(stop_ms, policy)
    step_ms = scene.step_ms * scene.drift
    for _ in range(12):
        planner.observe_closing(dice.lasting(scene.closing_ms))
    for _ in range(policy.window):
        planner.observe_step(dice.lasting(step_ms))
    now = insured_ms + dice.lasting(step_ms) * random.random()
    insurance = dice.lasting(scene.closing_ms)
    planner.observe_closing(insurance)
    now += insurance
    insured_at = dice.included_ms(now)
    # Steps that the planner certainly allows, taken at once.
    sure = planner.training_ends_ms - now - 20 * step_ms - 4 * scene.closing_ms
    skipped = max(0, int(sure / step_ms) - policy.window)
    if skipped:
        bulk = random.normal(math.exp(scene.jitter**2 / 2), scene.jitter / math.sqrt(skipped))
        now += skipped * step_ms * bulk + dice.stalled(skipped * step_ms)
    trained = now
    while planner.allows_step(now):
        step = dice.lasting(step_ms)
        now += step
        planner.observe_step(step)
        trained = now
    last_at = dice.included_ms(now + dice.lasting(scene.closing_ms))
    late, uninsured = last_at >= PHASE_MS, insured_at >= PHASE_MS
    first_at = dice.included_ms(FIRST_SNAPSHOT_MS + dice.lasting(scene.closing_ms))
    return Outcome(
        missed=late and uninsured and first_at >= PHASE_MS,
        early=late and uninsured and first_at < PHASE_MS,
        late=late and not uninsured,
        idle_ms=PHASE_MS - trained + insurance,
    )


def planned_by_epochs(
    scene: Scene, random: np.random.Generator, stop_ms: float = PHASE_MS
) -> Outcome:
    """A round by the paper's rule: nothing is committed before the last epoch is over."""
    dice = Dice(random, scene)
    spread = scene.jitter / math.sqrt(scene.steps_per_epoch)
    usual = scene.step_ms * scene.steps_per_epoch * math.exp(scene.jitter**2 / 2)
    first = usual * random.normal(1.0, spread) + dice.stalled(usual)
    epochs = whole_epochs(first, first, stop_ms)
    rest = usual * scene.drift * epochs
    noise = random.normal(1.0, spread / math.sqrt(max(1, epochs)))
    stalls = sum(dice.stalled(rest / 64) for _ in range(64))
    trained = first + rest * noise + stalls
    missed = dice.included_ms(trained + dice.lasting(scene.closing_ms)) >= PHASE_MS
    return Outcome(missed, early=False, late=False, idle_ms=PHASE_MS - min(trained, PHASE_MS))


def simulate(rounds: int, seed: int, drift: float) -> dict[str, dict[str, Any]]:
    """What became of every rule's rounds, over the same scenes."""
    scenes = np.random.Generator(np.random.Philox(seed))
    random = np.random.Generator(np.random.Philox(seed + 1))
    found: dict[str, list[tuple[float, Outcome]]] = {name: [] for name in RULES}
    for _ in track(range(rounds), "simulating"):
        scene = draw_scene(scenes, drift)
        for name, rule in RULES.items():
            found[name].append((scene.block_ms, rule(scene, random)))
    return {name: _summary(outcomes) for name, outcomes in found.items()}


def _cautious(scene: Scene, random: np.random.Generator) -> Outcome:
    kept = 1_000 * last_call_seconds(scene.block_ms / 1_000) + scene.closing_ms
    return planned_by_epochs(scene, random, PHASE_MS - kept)


RULES: Final = {
    "step by step": planned_step_by_step,
    "the paper's": planned_by_epochs,
    "the paper's, with our margin": _cautious,
}


def _summary(outcomes: list[tuple[float, Outcome]]) -> dict[str, Any]:
    slow = [one.idle_ms for block_ms, one in outcomes if block_ms == 12_000]
    idle = [one.idle_ms for _, one in outcomes]
    return {
        "rounds": len(outcomes),
        "missed": sum(one.missed for _, one in outcomes),
        "early": sum(one.early for _, one in outcomes),
        "late": sum(one.late for _, one in outcomes),
        "idle_percent": round(100 * float(np.mean(idle)) / PHASE_MS, 3),
        "idle_percent_12_s_blocks": round(100 * float(np.mean(slow)) / PHASE_MS, 3)
        if slow
        else None,
        "idle_percent_12_s_blocks_p99": round(100 * float(np.quantile(slow, 0.99)) / PHASE_MS, 3)
        if slow
        else None,
    }


def main() -> int:
    """Simulate, play live where asked, print; 1 where a round was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=2019)
    parser.add_argument("--drift", type=float, default=0.05)
    parser.add_argument("--live", type=int, default=0, help="rounds to play on anvil")
    arguments = parser.parse_args()
    rules = simulate(arguments.rounds, arguments.seed, arguments.drift)
    table = Table(
        "rule", "rounds", "missed", "early", "late", "idle %", "idle %, 12 s blocks", "its p99"
    )
    for name, row in rules.items():
        table.add_row(name, *(str(value) for value in row.values()))
    Console().print(table)
    live: dict[str, Any] | None = None
    if arguments.live:
        live = play(arguments.live)
    print(json.dumps({"benchmark": "deadline", "simulated": rules, "live": live}))
    missed = rules["step by step"]["missed"] + (live["missed"] if live else 0)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
