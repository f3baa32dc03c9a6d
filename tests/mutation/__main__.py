"""``make mutation``: mistakes in the arena, and whether the tests notice them."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .campaign import Campaign
from .compiler import Compiler
from .forge import BrokenBuild, Forge
from .mutants import Mutant
from .report import Report, explanations, report
from .results import Fate, Result

ROOT = Path(__file__).resolve().parents[2]
PATHS = ("contracts/PoUW.sol", "contracts/TaskQueue.sol")
EPILOG = """\
example: PYTHONPATH=tests python -m mutation --only '_close:'

Results are kept in .build/mutation; a run that was killed goes on where it was. Exit code 1: a
survivor without an explanation in survivors.toml, an explanation that is not true, or a score
below 95 %. Exit code 2: the tests do not compile, or do not pass on the arena as it is.
"""


def main() -> int:
    """Run the campaign that the command line describes; 0 where nothing is to complain of."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    explained = explanations(options.survivors)
    try:
        results = _play(options, {one.name for one in explained})
    except BrokenBuild as error:
        print(f"nothing can be learnt: {error}", file=sys.stderr)
        return 2
    whole = not options.only
    reports = [report(path, results, explained, whole=whole) for path in options.paths]
    _tell(reports, time.monotonic() - began, as_json=options.json)
    return int(any(one.complaints for one in reports))


def _play(options: argparse.Namespace, explained: set[str]) -> list[Result]:
    """What is known of the mutants that are wanted, and what has to be played for the rest."""
    folder = options.folder or options.repository / ".build" / "mutation"
    forge = Forge(options.repository, folder)
    results: list[Result] = []
    left: list[Mutant] = []
    with Compiler(forge.tree) as compiler, _bar() as bar:
        campaign = Campaign(folder, compiler, forge, explained=explained)
        for mutant in campaign.mutants(options.paths):
            if not re.search(options.only, mutant.name):
                continue
            known = campaign.results.known(mutant, other_tests=options.trust_kills)
            if known is None or known.fate is Fate.UNNOTICED:
                left.append(mutant)
            else:
                results.append(known)
        task = bar.add_task("mutants", total=len(left) + len(results), completed=len(results))
        for result in campaign.run(left):
            results.append(result)
            bar.advance(task)
            if result.fate is Fate.SURVIVED:
                found = f"{result.path}:{result.line} {result.name}"
                bar.console.print(found, markup=False, highlight=False)
    return results


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mutation",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="*", default=list(PATHS), help="sources to mutate (PoUW.sol, TaskQueue.sol)"
    )
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="only mutants whose name matches"
    )
    parser.add_argument(
        "--survivors", type=Path, default=Path(__file__).with_name("survivors.toml")
    )
    parser.add_argument(
        "--repository", type=Path, default=ROOT, help="contracts and tests (this one's)"
    )
    parser.add_argument("--folder", type=Path, help="results and copies (.build/mutation)")
    parser.add_argument(
        "--trust-kills",
        action="store_true",
        help="do not play again what other versions of the tests killed",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args()


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _tell(reports: list[Report], seconds: float, *, as_json: bool) -> None:
    if as_json:
        figures = [
            {
                "path": one.path,
                "killed": one.killed,
                "survived": one.survived,
                "equivalent": one.equivalent,
                "stillborn": one.stillborn,
                "score": round(one.score, 4),
                "survivors": [survivor.name for survivor in one.survivors],
                "complaints": one.complaints,
            }
            for one in reports
        ]
        print(json.dumps({"sources": figures, "seconds": round(seconds)}))
        return
    for one in reports:
        print(
            f"{one.path}: {one.killed} killed, {one.survived} survived, "
            f"{one.equivalent} equivalent, {one.stillborn} do not compile; "
            f"{one.score:.1%} of those not equivalent are killed"
        )
        for complaint in one.complaints:
            print(f"  {complaint}")
    print(f"{seconds:.0f} seconds")


if __name__ == "__main__":
    raise SystemExit(main())
