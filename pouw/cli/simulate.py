"""``pouw simulate``: what if? Double spending, load, selection, by Monte-Carlo."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pouw.cli.options import example
from pouw.cli.output import Output, bar
from pouw.errors import ConfigError

if TYPE_CHECKING:
    from pouw.ledger.simulate.double_spend import Attack

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_SEED = click.option("--seed", default=0, show_default=True, help="The same seed, the same result.")
_PICTURES = (".png", ".svg", ".pdf")


def _picture(_ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in _PICTURES:
        raise click.BadParameter(f"{path} must end with one of {', '.join(_PICTURES)}")
    return path


_PLOT = click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_picture,
    help="Also draw the result (.png, .svg, .pdf).",
)


class Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float], low: float, high: float) -> None:
        self._kind, self._low, self._high = kind, low, high

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """A tuple, each number within bounds."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self._kind(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: write numbers with commas between them", param, ctx)
        for number in numbers:
            if not self._low <= number <= self._high:
                self.fail(f"{number} is not from {self._low} to {self._high}", param, ctx)
        return numbers


@click.group()
def simulate() -> None:
    """Simulate attacks and load (needs pouw[simulate])."""
    try:
        import numpy as _  # noqa: F401 - asked for here, to say what to install
    except ImportError as error:
        raise ConfigError("simulations need numpy", hint="pip install 'pouw[simulate]'") from error


@simulate.command(
    "double-spend",
    epilog=example("pouw simulate double-spend --confirmations 6 --plot double_spend.png"),
)
@click.option("--confirmations", type=click.IntRange(1, 1000), default=6, show_default=True)
@click.option(
    "--shares",
    type=Numbers(float, 0.001, 0.999),
    default="0.005,0.01,0.015,0.02,0.03,0.05,0.08,0.1,0.12,0.15,0.2,0.25,0.3,0.35,0.4,0.45,0.5,0.55",
    help="The attacker's share of all compute.",
)
@click.option(
    "--miners",
    type=Numbers(int, 1, 100_000),
    default="1,10,100",
    show_default=True,
    help="Honest miners, who share the rest of the compute and do not pool it.",
)
@click.option(
    "--steps",
    type=click.IntRange(1, 1_000_000),
    default=256,
    show_default=True,
    help="Optimizer steps that an honest miner can train in a Phase 1.",
)
@click.option("--trials", type=click.IntRange(100, 10**7), default=20_000, show_default=True)
@_SEED
@_PLOT
@_JSON
def double_spend(
    confirmations: int,
    shares: tuple[float, ...],
    miners: tuple[int, ...],
    steps: int,
    trials: int,
    seed: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """How often an attacker overturns a confirmed payment, beside the same with hashes.

    What a model gains from compute is fitted to real trainings of ours.
    """
    from pouw.ledger.simulate.curve import fit, measured, measured_points
    from pouw.ledger.simulate.double_spend import Honest, Plan, attacks, even_share

    points = measured_points()
    plan = Plan(shares, miners, steps, confirmations, trials, seed=seed)
    with bar() as progress:
        found = attacks(points, plan, partial(progress, "double-spend"))
        curve = fit(points)
        even = {count: even_share(curve, Honest(count, steps), seed) for count in miners}
    document = {
        "confirmations": confirmations,
        "steps": steps,
        "trials": trials,
        "seed": seed,
        "trainings": len(points),
        "trained_on": measured()["task"],
        "curve": asdict(curve),
        "even_share": {str(count): round(share, 4) for count, share in even.items()},
        "attacks": [asdict(attack) for attack in found],
    }
    if plot is not None:
        from pouw.cli.plots import draw_double_spend

        draw_double_spend(found, confirmations, plot)
    Output(as_json=as_json).result(document, lambda: _attack_table(found, even))


def _attack_table(found: list[Attack], even: dict[int, float]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("attacker", "honest miners", "wins a task", "overturns", "95 %", "with hashes")
    for one in found:
        table.add_row(
            f"{one.share:.2f}",
            str(one.miners),
            f"{one.chance:.3f}",
            f"{one.success.value:.4f}",
            f"{one.success.low:.4f} to {one.success.high:.4f}",
            f"{one.by_hash.value:.4f}",
        )
    lines = [
        f"against {count} honest miner(s), {share:.1%} of all compute wins every other task"
        for count, share in even.items()
    ]
    return Group(table, *(Text(line) for line in lines))


@simulate.command(epilog=example("pouw simulate load --tasks 1000000 --miners 10000"))
@click.option("--tasks", type=click.IntRange(1, 10**8), default=1_000_000, show_default=True)
@click.option("--miners", type=click.IntRange(1, 10**6), default=10_000, show_default=True)
@_SEED
@_JSON
def load(tasks: int, miners: int, seed: int, as_json: bool) -> None:
    """Play very many tasks and miners through pool, rounds and reorganisations."""
    import numpy as np

    from pouw.ledger.simulate.load import Load, LoadPlay

    begun = time.perf_counter()
    with bar() as progress:
        play = LoadPlay(Load(tasks, miners), np.random.default_rng(seed))
        played = play.run(partial(progress, "tasks"))
    seconds = time.perf_counter() - begun
    document = {
        "tasks": tasks,
        "miners": miners,
        "seconds": round(seconds, 3),
        **asdict(played),
        "pool_history": "0x" + played.pool_history.hex(),
        "last_header": "0x" + played.last_header.hex(),
    }
    Output(as_json=as_json).result(
        document,
        f"{played.changes:,} changes of the pool, {played.rounds:,} rounds with "
        f"{played.reveals:,} reveals, {played.reorganised_blocks:,} blocks reorganised: "
        f"{seconds:.1f} s\n{played.pooled:,} tasks left in the pool, in order; "
        "every header follows from the one before",
    )


@simulate.command(epilog=example("pouw simulate selection --load 0.9 --plot selection.png"))
@click.option(
    "--load",
    "loads",
    type=Numbers(float, 0.01, 10),
    default="0.5,0.9,1.1,2",
    show_default=True,
    help="Tasks published a round, on average.",
)
@click.option("--rounds", type=click.IntRange(100, 10**6), default=3_000, show_default=True)
@click.option(
    "--patience",
    type=click.IntRange(1, 10**6),
    default=100,
    show_default=True,
    help="Rounds that a publisher waits.",
)
@click.option("--repetitions", type=click.IntRange(2, 10_000), default=40, show_default=True)
@_SEED
@_PLOT
@_JSON
def selection(
    loads: tuple[float, ...],
    rounds: int,
    patience: int,
    repetitions: int,
    seed: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Who is selected in time, by reward: the price of a place in the pool."""
    import numpy as np

    from pouw.ledger.simulate.selection import selection as play

    if patience * 2 > rounds:
        raise ConfigError(
            f"{rounds} rounds are too few for a patience of {patience}",
            hint="simulate at least twice as many rounds",
        )
    random = np.random.default_rng(seed)
    found = {}
    with bar() as progress:
        for place, one in enumerate(loads, 1):
            found[one] = play(one, rounds, patience, repetitions, random)
            progress("selection", place, len(loads))
    document = {
        "rounds": rounds,
        "patience": patience,
        "repetitions": repetitions,
        "seed": seed,
        "loads": {str(one): [asdict(tenth) for tenth in tenths] for one, tenths in found.items()},
    }
    if plot is not None:
        from pouw.cli.plots import draw_selection

        draw_selection(found, patience, plot)

    def table() -> Any:
        from rich.table import Table

        drawn = Table("reward, tenth", *(f"load {one:g}" for one in found))
        for tenth in range(10):
            drawn.add_row(
                f"{tenth + 1}",
                *(
                    f"{each[tenth].served:.1%} ± {_half(each[tenth]):.1%}"
                    for each in found.values()
                ),
            )
        drawn.caption = f"selected within {patience} rounds; tenth 10 has the highest rewards"
        return drawn

    Output(as_json=as_json).result(document, table)


def _half(service: Any) -> float:
    return float(service.served_high - service.served_low) / 2
