"""What a user sees: one result on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pouw.types import SCORE_ONE_PPM

if TYPE_CHECKING:
    from rich.console import Console

_LOG_WIDTH = 110
LINE_SECONDS = 10.0
"""How often a long command says how far it is where nobody watches a bar."""
_UNITS = (("ether", 18), ("gwei", 9), ("wei", 0))


class Output:
    """Results as JSON (one document) or as text; notices apart from them."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, document: Any, text: str | Callable[[], Any]) -> None:
        """Print ``document`` where JSON was asked for, else ``text`` (or what it returns, by rich).

        Rich finds its own width; words are never cut.
        """
        if self.as_json:
            click.echo(json.dumps(document, sort_keys=True))
        elif isinstance(text, str):
            click.echo(text)
        else:
            console().print(text())

    def notice(self, text: str) -> None:
        """A line for the user beside the result."""
        click.echo(text, err=True)


def show_error(message: str, hint: str | None, *, as_json: bool) -> None:
    """One line what is wrong and one line what to do, on standard error; as JSON where asked."""
    message = " ".join(message.split())
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {' '.join(hint.split())}", err=True)
    if as_json:
        click.echo(json.dumps({"error": message, "hint": hint}, sort_keys=True))


def console(*, err: bool = False) -> Console:
    """Where tables are drawn: as wide as the terminal, wide enough for them where there is none."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(stderr=err, highlight=False, width=None if stream.isatty() else _LOG_WIDTH)


@contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error, lines where it is no terminal: (stage, done, total).

    A ``total`` of 0: nobody knows yet how much there is.
    """
    if not is_terminal():
        with _lines("at work") as say:
            yield say
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(err=True)) as drawn:
        row = drawn.add_task("", total=None)
        yield lambda stage, done, total: drawn.update(
            row, description=stage, completed=done if total else None, total=total or None
        )


@contextmanager
def waiting(stage: str) -> Iterator[None]:
    """A sign of life on standard error in a ``stage`` that cannot tell how far it is."""
    with console(err=True).status(stage) if is_terminal() else _lines(stage):
        yield


@contextmanager
def _lines(stage: str) -> Iterator[Callable[[str, int, int], None]]:
    """The latest stage, how far it is and how long all took, on a line every LINE_SECONDS.

    From a thread of its own: from one call to the next may pass minutes.
    """
    begun, over = time.monotonic(), threading.Event()
    latest = stage

    def say(stage: str, done: int, total: int) -> None:
        nonlocal latest
        latest = f"{stage}: {100 * done // total} %" if total else stage

    def speak() -> None:
        while not over.wait(LINE_SECONDS):
            try:
                click.echo(f"{latest}, {duration(int(time.monotonic() - begun))}", err=True)
            except OSError:  # whoever read it has gone; the result may still be wanted
                return

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield say
    finally:
        over.set()
        speaker.join()


def rounded(wei: int) -> str:
    """``wei`` in ether with four decimals, rounded down; a dash for nothing."""
    return f"{wei // 10**14 / 10**4:.4f} ether" if wei else "-"


def amount(wei: int) -> str:
    """``wei`` in the unit that reads best, exactly."""
    unit, decimals = next(
        (unit, decimals)
        for unit, decimals in _UNITS
        if not decimals or abs(wei) * 1000 >= 10**decimals
    )
    digits = f"{abs(wei):0{decimals + 1}d}"
    whole, rest = digits[: len(digits) - decimals], digits[len(digits) - decimals :].rstrip("0")
    return f"{'-' if wei < 0 else ''}{whole}{'.' + rest if rest else ''} {unit}"


def score(ppm: int | None) -> str:
    """A score as Dice with four decimals, rounded down; a dash where there is none."""
    return "-" if ppm is None else f"{ppm * 10_000 // SCORE_ONE_PPM / 10_000:.4f}"


def moment(seconds: int) -> str:
    """A block's time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def duration(seconds: int) -> str:
    """Seconds in hours, minutes and seconds."""
    minutes, second = divmod(max(0, seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute:02d} min"
    return f"{minute} min {second:02d} s" if minute else f"{second} s"


def short(address: str) -> str:
    """The first and last digits of an address or a digest."""
    return address if len(address) <= 12 else f"{address[:6]}..{address[-4:]}"


def is_terminal() -> bool:
    """Whether a person watches standard error."""
    return sys.stderr.isatty()
