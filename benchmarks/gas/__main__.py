"""``python -m benchmarks.gas``: measure, print, keep, compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import click
from rich.progress import Progress

from benchmarks.gas import peers
from benchmarks.gas.anvil import ROOT, Chain, Compiled, anvil, compile_contracts
from benchmarks.gas.pools import play_pools, play_walks
from benchmarks.gas.round import Outcome, play_round
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
    """Gas by name; ChainError where the port's round does not end as the arena's.

    Large pools have chains of their own: anvil copies its state with every block.
    """
    screen = console(err=True)
    with Progress(console=screen, disable=not screen.is_terminal) as progress:
        screen.print("compiling")
        names = ["Crowd"] if alone else ["Crowd", "Peers", "PlainPoUW"]
        compiled = compile_contracts(*names) | {"PoUW": Compiled.read(ARTIFACT)}
        screen.print(f"playing a round of {miners} miners")
        with anvil() as chain:
            ours, outcome = _play_round(chain, compiled["PoUW"], miners)
            plain = {} if alone else _play_port(chain, compiled, sizes, (miners, outcome))
            others = {} if alone else _ask_peers(chain, compiled)

        bar = progress.add_task("tasks pooled", total=sizes[-1] * (1 if alone else 2))

        def advance(count: int) -> None:
            progress.advance(bar, count)

        screen.print(f"filling a pool with {sizes[-1]:,} tasks")
        with anvil() as chain:
            stage = Stage(chain, compiled["PoUW"])
            play_pools(stage, chain.deploy(compiled["Crowd"]), sizes, advance)
        if not alone:
            screen.print(f"filling a heap with {sizes[-1]:,} words")
            with anvil() as chain:
                others |= peers.heap(chain, compiled["HeapPool"], sizes, advance)
    return Measured(sizes, miners, stage.gas | ours, plain, others)


def _play_round(chain: Chain, compiled: Compiled, miners: int) -> tuple[dict[str, int], Outcome]:
    stage = Stage(chain, compiled)
    outcome = play_round(stage, miners)
    return stage.gas, outcome


def _play_port(
    chain: Chain, compiled: dict[str, Compiled], sizes: list[int], played: tuple[int, Outcome]
) -> dict[str, int]:
    miners, outcome = played
    gas, ported = _play_round(chain, compiled["PlainPoUW"], miners)
    if ported != outcome:
        raise ChainError("the plain port's round ended otherwise than the arena's")
    walks = Stage(chain, compiled["PlainPoUW"])
    walked = [size for size in sizes if size <= WALKED]
    play_walks(walks, chain.deploy(compiled["Crowd"]), walked)
    return walks.gas | gas


def _ask_peers(chain: Chain, compiled: dict[str, Compiled]) -> dict[str, int]:
    asserted, settled = peers.uma_assertion(chain)
    committed = peers.ens_commit(chain, compiled["EnsCommit"])
    return {"UMA assert": asserted, "UMA settle": settled, "ENS commit": committed}


if __name__ == "__main__":
    main()
