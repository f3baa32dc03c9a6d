"""The progress bar of a training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pouw.cli.output import console, score
from pouw.types import SCORE_ONE_PPM

if TYPE_CHECKING:
    from rich.progress import Progress

    from pouw.roles.watching import TrainingState

_PAUSE_SECONDS = 0.5


def watch(home: Path) -> None:
    """Draw the bar of the latest training in ``home`` until that training is over."""
    from pouw.roles.watching import read_training

    with _bar() as bar:
        task = bar.add_task("waiting for a training", total=SCORE_ONE_PPM, facts="")
        while True:
            state = read_training(home)
            if state is not None:
                done = SCORE_ONE_PPM if state.ended else state.fraction_ppm
                bar.update(
                    task,
                    description=f"round {state.round}",
                    completed=done,
                    facts=facts(state, time.time()),
                )
                if state.ended:
                    return
            time.sleep(_PAUSE_SECONDS)


def facts(state: TrainingState, now: float) -> str:
    """Step, loss, Dice, time left and projected finish (``now`` in Unix seconds), in one line."""
    known = f"step {state.step}, loss {state.loss_ppm / SCORE_ONE_PPM:.3f}, "
    known += f"Dice {score(state.dice_ppm)}"
    if state.ended:
        return f"{known}, ended: {state.ended}"
    ends = state.ends_at_ms / 1_000
    clock = time.strftime("%H:%M:%S", time.localtime(ends))
    minutes, seconds = divmod(max(0, round(ends - now)), 60)
    return f"{known}, {minutes}:{seconds:02d} left, finish {clock}"


def _bar() -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[facts]}"),
        console=console(err=True),
    )
