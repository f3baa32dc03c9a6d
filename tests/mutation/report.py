"""What a campaign showed: the score, the survivors, and whether what is said of them is true."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from .results import Fate, Result

# At least so many of the mutants that are not equivalent must be killed.
FLOOR: Final = 0.95


@dataclass(frozen=True)
class Explanation:
    """Why a mutant survives; ``equivalent``: no call can tell it from the arena."""

    path: str
    name: str
    equivalent: bool
    because: str


@dataclass(frozen=True)
class Report:
    """Figures of one source, and what is wrong with it."""

    path: str
    killed: int
    survived: int
    equivalent: int
    stillborn: int
    seconds: float
    survivors: tuple[Result, ...]
    complaints: tuple[str, ...]

    @property
    def score(self) -> float:
        """Killed mutants among those that are not equivalent."""
        return self.killed / max(1, self.killed + self.survived)


def explanations(file: Path) -> tuple[Explanation, ...]:
    """The explained survivors; each ``because`` holds for all mutants of its entry."""
    entries = tomllib.loads(file.read_text(encoding="utf-8")).get("survivor", [])
    return tuple(
        Explanation(entry["path"], name, entry["equivalent"], entry["because"])
        for entry in entries
        for name in entry["mutants"]
    )


def report(
    path: str, results: Iterable[Result], explained: Sequence[Explanation], *, whole: bool
) -> Report:
    """Compare results with explanations; ``whole``: every mutant of the source was played.

    It complains of a survivor that nobody explained, of a mutant that is said to survive and was
    killed, of one that does not exist, and of a score below the floor.
    """
    by_name = {result.name: result for result in results if result.path == path}
    counts = Counter(result.fate for result in by_name.values())
    said = {one.name: one for one in explained if one.path == path}
    survivors = {name: one for name, one in by_name.items() if one.fate is Fate.SURVIVED}
    complaints = [
        f"unexplained survivor, line {one.line}: {name}"
        for name, one in survivors.items()
        if name not in said
    ]
    for name in said:
        if name not in by_name:
            if whole:
                complaints.append(f"said to survive, but there is no such mutant: {name}")
        elif name not in survivors:
            fate = by_name[name].fate
            complaints.append(f"said to survive, but {fate} {by_name[name].by}: {name}")
    equivalent = sum(said[name].equivalent for name in survivors if name in said)
    figures = Report(
        path=path,
        killed=counts[Fate.KILLED],
        survived=len(survivors) - equivalent,
        equivalent=counts[Fate.SAME] + equivalent,
        stillborn=counts[Fate.STILLBORN],
        seconds=sum(result.seconds for result in by_name.values()),
        survivors=tuple(survivors.values()),
        complaints=tuple(complaints),
    )
    if whole and figures.score < FLOOR:
        below = f"{figures.score:.1%} of those not equivalent are killed, {FLOOR:.0%} are asked for"
        return replace(figures, complaints=(*complaints, below))
    return figures
