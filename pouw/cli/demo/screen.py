"""How the demo shows its progress: a live table for a person, plain lines for a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import click

from pouw.cli.output import duration, is_terminal, score

if TYPE_CHECKING:
    from rich.console import RenderableType

_LINES: Final = 12
_HEARTBEAT_SECONDS: Final = 20.0


class Screen(Protocol):
    """Where progress goes."""

    def say(self, line: str) -> None:
        """Something happened."""
        ...

    def show(self, phase: str, people: Sequence[tuple[str, dict[str, Any] | None]]) -> None:
        """Where the arena stands, and what everybody last said of himself."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_screen() -> Screen:
    """A live table where standard error is a terminal, plain lines otherwise."""
    return LiveScreen() if is_terminal() else PlainScreen()


class PlainScreen:
    """A line with the elapsed seconds for every event, and a sign of life now and then."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stderr.flush()

    def say(self, line: str) -> None:
        """Print the line."""
        self._last = time.monotonic()
        click.echo(f"{self._last - self._begun:6.1f}  {line}", err=True)

    def show(self, phase: str, people: Sequence[tuple[str, dict[str, Any] | None]]) -> None:
        """Print the phase when nothing was said for a while, with the best model so far."""
        if time.monotonic() - self._last < _HEARTBEAT_SECONDS:
            return
        reached = [f"{name} {detail}" for name, said in people if (detail := _detail(said))]
        self.say(f"{phase}{'; ' if reached else ''}{', '.join(reached)}")


class LiveScreen:
    """A table that is drawn again twice a second, with the last events below it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._begun = time.monotonic()
        self._events: deque[str] = deque(maxlen=_LINES)
        self._phase = "preparing"
        self._people: Sequence[tuple[str, dict[str, Any] | None]] = ()
        self._live = Live(
            get_renderable=self._draw, console=Console(stderr=True), refresh_per_second=2
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Add the line to the events shown."""
        self._events.append(f"{time.monotonic() - self._begun:6.1f}  {line}")

    def show(self, phase: str, people: Sequence[tuple[str, dict[str, Any] | None]]) -> None:
        """Show this from now on."""
        self._phase, self._people = phase, people

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("who", "does", "model", expand=False)
        for name, said in self._people:
            doing = str(said["doing"]) if said else "starts"
            table.add_row(name, doing, _detail(said))
        elapsed = duration(int(time.monotonic() - self._begun))
        lines = [Text(line, overflow="ellipsis", no_wrap=True) for line in self._events]
        head = Text(f"pouw demo, {elapsed}: {self._phase}", style="bold")
        return Group(head, *([table] if self._people else []), *lines)


def _detail(said: dict[str, Any] | None) -> str:
    """How good a model the participant has, as far as he says."""
    data = said["data"] if said else {}
    if "claim_ppm" in data:
        return f"claims {score(data['claim_ppm'])}"
    if "validation_dice_ppm" in data:
        return f"step {data['step']}, validation {score(data['validation_dice_ppm'])}"
    return ""
