"""Ceilings, what passes them, and the table of ours, ceilings and peers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

CEILINGS: Final = {
    "publish": 150_000,
    "commit": 49_500,
    "overwrite": 32_500,
    "reveal": 50_000,
    "two votes and finalize": 320_000,
    "reclaim": 64_000,
}
CEILING_MINERS: Final = 100
ROUND_CEILING: Final = 16_500_000
PLACES: Final = ("end", "middle", "head")
_FLAT: Final = 1.01
_ROUND_CALLS: Final = (
    "publish",
    "release data key",
    "commit",
    "overwrite",
    "open test and select",
    "reveal",
    "first vote",
    "deciding vote",
    "finalize",
    "two votes and finalize",
    "reclaim",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Gas by name: of the arena, of its plain port, of the peers."""

    sizes: list[int]
    miners: int
    ours: dict[str, int]
    plain: dict[str, int] = field(default_factory=dict)
    peers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; what was not measured is None."""

    name: str
    ours: int
    ceiling: int | None = None
    plain: int | None = None
    peer: tuple[str, int] | None = None

    def document(self) -> dict[str, Any]:
        """For the file of results."""
        peer = {"name": self.peer[0], "gas": self.peer[1]} if self.peer else None
        return {
            "call": self.name,
            "gas": self.ours,
            "ceiling": self.ceiling,
            "plain": self.plain,
            "peer": peer,
        }


def over(measured: Measured) -> list[str]:
    """What passes its ceiling, or is not flat over the sizes of the pool (within 1 %)."""
    problems = [
        f"{row.name}: {row.ours:,} > {row.ceiling:,}"
        for row in rows(measured)
        if row.ceiling is not None and row.ours > row.ceiling
    ]
    kinds = [f"publish into {{}}, {place}" for place in PLACES]
    for kind in (*kinds, "drop and select of {}"):
        costs = [measured.ours[kind.format(f"{size:,}")] for size in measured.sizes]
        if max(costs) > min(costs) * _FLAT:
            problems.append(f"{kind.format('pools')}: not flat: {costs}")
    return problems


def rows(measured: Measured) -> list[Row]:
    """The table's lines, in the order of a task's life."""
    lines = _pool_rows(measured)
    for name in _ROUND_CALLS:
        peers = ("ENS commit", ["ENS commit"]) if name == "commit" else ("", [])
        lines.append(_row(measured, name, [name], CEILINGS.get(name), peers))
    claim, uma = ["commit", "reveal", "reclaim"], ["UMA assert", "UMA settle"]
    named = "commit + reveal + reclaim"
    lines.append(_row(measured, named, claim, None, ("UMA assert, settle", uma)))
    named = f"round of {measured.miners} miners"
    ceiling = ROUND_CEILING if measured.miners == CEILING_MINERS else None
    lines.append(_row(measured, named, ["round"], ceiling))
    lines.append(_row(measured, f"publish + {named}", ["publish", "round"]))
    return lines


def _pool_rows(measured: Measured) -> list[Row]:
    publishes, drops = [], []
    for size in (f"{size:,}" for size in measured.sizes):
        into = f"publish into {size}"
        dearest = max((f"{into}, {place}" for place in PLACES), key=measured.ours.__getitem__)
        publishes.append(
            Row(
                into,
                measured.ours[dearest],
                CEILINGS["publish"],
                _total(measured.plain, [f"{into}, end"]),
                _peer(measured, "heap insert", [f"heap insert at {size}"]),
            )
        )
        drop = f"drop and select of {size}"
        peers = ("heap pop", [f"heap pop at {size}"])
        drops.append(_row(measured, drop, [drop], None, peers))
    return publishes + drops


def _row(
    measured: Measured,
    named: str,
    calls: list[str],
    ceiling: int | None = None,
    peers: tuple[str, list[str]] = ("", []),
) -> Row:
    ours = sum(measured.ours[call] for call in calls)
    return Row(named, ours, ceiling, _total(measured.plain, calls), _peer(measured, *peers))


def _peer(measured: Measured, named: str, calls: list[str]) -> tuple[str, int] | None:
    gas = _total(measured.peers, calls)
    return None if gas is None else (named, gas)


def _total(gas: dict[str, int], calls: list[str]) -> int | None:
    known = [gas[call] for call in calls if call in gas]
    return sum(known) if known and len(known) == len(calls) else None


def draw(measured: Measured) -> Table:
    """The table for a terminal; factors say how many times ours the other costs."""
    title = "Gas (ETH, fresh slots, no withdrawals)"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("call", no_wrap=True)
    for heading in ("PoUW", "ceiling", "plain port", "x", "peer", "gas", "x"):
        table.add_column(heading, justify="left" if heading == "peer" else "right")
    for row in rows(measured):
        name, gas = row.peer or ("", None)
        plain = [_number(row.plain), _factor(row.plain, row.ours)]
        cells = [_number(row.ours), _number(row.ceiling), *plain]
        table.add_row(row.name, *cells, name, _number(gas), _factor(gas, row.ours))
    return table


def _number(gas: int | None) -> str:
    return "" if gas is None else f"{gas:,}"


def _factor(gas: int | None, ours: int) -> str:
    return "" if gas is None else f"{gas / ours:.2f}"
