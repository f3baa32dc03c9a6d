"""``python -m benchmarks.gas``: measure, print, keep, compare."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from rich.progress import Progress

from benchmarks.gas import peers
from benchmarks.gas.anvil import ROOT, Chain, Compiled, anvil, compile_contracts
from benchmarks.gas.pools import play_pools, play_walks
from benchmarks.gas.round import play_round
from benchmarks.gas.stage import Stage
from benchmarks.gas.table import Measured, draw, over, rows
from pouw.cli.output import console, show_error
from pouw.errors import ChainError, PouwError

RESULTS: Final = ROOT / "benchmarks" / "results" / "gas.json"
ARTIFACT: Final = ROOT / "pouw" / "chain" / "artifacts" / "PoUW.json"
# Past this the port's walk alone passes the 2^24 gas that one transaction may use (EIP-7825).
WALKED: Final = 1_000


@click.command(
    epilog="Example: python -m benchmarks.gas --size 10 --size 1000 --miners 10 --out /tmp/gas.json"
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=click.IntRange(2, 1_000_000),
    default=(10, 1_000, 100_000),
    show_default=True,
    help="Pooled tasks to publish into; give it again for more.",
)
@click.option(
    "--miners", type=click.IntRange(2, 10_000), default=100, show_default=True, help="In the round."
)
@click.option("--alone", is_flag=True, help="Without the plain port and the peers.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=RESULTS,
    help="Where the results go.  [default: benchmarks/results/gas.json]",
)
def main(sizes: tuple[int, ...], miners: int, alone: bool, out: Path) -> None:
    """Measure the gas of every call of the arena on anvil, beside its ceiling and its peers.

    Ends with one line of JSON; exit code 1 where a ceiling is passed.
    """
    try:
        measured = measure(sorted(set(sizes)), miners, alone=alone)
    except PouwError as error:
        show_error(str(error), error.hint, as_json=False)
        sys.exit(2)
    console().print(draw(measured))
    problems = over(measured)
    for problem in problems:
        click.echo(f"over: {problem}", err=True)
    document = {
        "benchmark": "gas",
        "miners": miners,
        "sizes": measured.sizes,
        "over": problems,
        "rows": [row.document() for row in rows(measured)],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")
    click.echo(json.dumps(document))
    sys.exit(1 if problems else 0)


def measure(sizes: list[int], miners: int, *, alone: bool) -> Measured:
    """Gas by name; ChainError where the port's round does not end as the arena's."""
    ours = Compiled.read(ARTIFACT)
    compiled = (
        compile_contracts("Crowd") if alone else compile_contracts("Crowd", "Peers", "PlainPoUW")
    )
    screen = console(err=True)
    with anvil() as chain, Progress(console=screen, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("tasks pooled", total=sizes[-1] * (1 if alone else 2))

        def advance(count: int) -> None:
            progress.advance(bar, count)

        played, crowd = Stage(chain, ours), chain.deploy(compiled["Crowd"])
        outcome = play_round(played, miners)
        pools = Stage(chain, ours)
        play_pools(pools, crowd, sizes, advance)
        gas = pools.gas | played.gas
        if alone:
            return Measured(sizes, miners, gas)
        port, walks = Stage(chain, compiled["PlainPoUW"]), Stage(chain, compiled["PlainPoUW"])
        if play_round(port, miners) != outcome:
            raise ChainError("the plain port's round ended otherwise than the arena's")
        play_walks(walks, crowd, [size for size in sizes if size <= WALKED])
        others = _measure_peers(chain, compiled, sizes, advance)
    return Measured(sizes, miners, gas, walks.gas | port.gas, others)


def _measure_peers(
    chain: Chain, compiled: dict[str, Compiled], sizes: list[int], advance: Callable[[int], None]
) -> dict[str, int]:
    asserted, settled = peers.uma_assertion(chain)
    others = {"UMA assert": asserted, "UMA settle": settled}
    others["ENS commit"] = peers.ens_commit(chain, compiled["EnsCommit"])
    ordered = peers.heap(chain, compiled["HeapPool"], sizes, advance)
    return others | {f"heap {name}": gas for name, gas in ordered.items()}


if __name__ == "__main__":
    main()
