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
from .forge import Forge
from .report import Report, explanations, report
from .results import Fate

ROOT = Path(__file__).resolve().parents[2]
PATHS = ("contracts/PoUW.sol", "contracts/TaskQueue.sol")
EPILOG = """\
example: PYTHONPATH=tests python -m mutation --only '_close:'

Results are kept in .build/mutation; a run that was killed goes on where it was. Exit code 1: a
survivor without an explanation in survivors.toml, an explanation that is not true, or a score
below 95 %.
"""


def main() -> int:
    """Run the campaign that the command line describes; 0 where nothing is to complain of."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = options.folder or options.repository / ".build" / "mutation"
    explained = explanations(options.survivors)
    console = Console(stderr=True)
    began = time.monotonic()
    forge = Forge(options.repository, folder)
    with Compiler(forge.tree) as compiler:
        campaign = Campaign(folder, compiler, forge, explained={one.name for one in explained})
        wanted = [m for m in campaign.mutants(options.paths) if re.search(options.only, m.name)]
        results = {}
        for mutant in wanted:
            known = campaign.results.known(mutant, other_tests=options.trust_kills)
            if known is not None and known.fate is not Fate.UNNOTICED:
                results[mutant.path, mutant.name] = known
        left = [mutant for mutant in wanted if (mutant.path, mutant.name) not in results]
        with _bar(console) as bar:
            task = bar.add_task("mutants", total=len(wanted), completed=len(results))
            for result in campaign.run(left):
                results[result.path, result.name] = result
                bar.advance(task)
                if result.fate is Fate.SURVIVED:
                    bar.console.print(
                        f"{result.path}:{result.line} {result.name}", markup=False, highlight=False
                    )
    reports = [
        report(path, results.values(), explained, whole=not options.only) for path in options.paths
    ]
    _tell(reports, time.monotonic() - began, as_json=options.json)
    return int(any(one.complaints for one in reports))


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


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
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
