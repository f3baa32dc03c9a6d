"""The progress of a training: a bar, or lines where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pouw.cli.output import LINE_SECONDS, console, is_terminal, score
from pouw.types import SCORE_ONE_PPM

if TYPE_CHECKING:
    from pouw.roles.watching import TrainingState

_PAUSE_SECONDS = 0.5
_WAITING = "waiting for a training"

Show = Callable[["TrainingState | None"], None]


def watch(home: Path) -> None:
    """Show how far the latest training in ``home`` is until that training is over."""
    from pouw.roles.watching import read_training

    with _bar() if is_terminal() else _lines() as show:
        while True:
            state = read_training(home)
            show(state)
            if state is not None and state.ended:
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


def _done_ppm(state: TrainingState) -> int:
    return SCORE_ONE_PPM if state.ended else state.fraction_ppm


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[facts]}"),
        console=console(err=True),
    ) as drawn:
        task = drawn.add_task(_WAITING, total=SCORE_ONE_PPM, facts="")

        def show(state: TrainingState | None) -> None:
            if state is not None:
                drawn.update(
                    task,
                    description=f"round {state.round}",
                    completed=_done_ppm(state),
                    facts=facts(state, time.time()),
                )

        yield show


@contextmanager
def _lines() -> Iterator[Show]:
    """A line at once, then every LINE_SECONDS, and the last."""
    due = time.monotonic()

    def show(state: TrainingState | None) -> None:
        nonlocal due
        ended = state is not None and state.ended
        if time.monotonic() < due and not ended:
            return
        due = time.monotonic() + LINE_SECONDS
        line = _WAITING
        if state is not None:
            percent = 100 * _done_ppm(state) // SCORE_ONE_PPM
            line = f"round {state.round}: {percent} %, {facts(state, time.time())}"
        click.echo(line, err=True)

    yield show
