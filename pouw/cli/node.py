"""``pouw node``: recheck every past payment, from the chain and the store alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pouw.cli.adapters import observer_for
from pouw.cli.forks import compare, confirmations
from pouw.cli.options import CHAIN, READER, Call, example, settings_options
from pouw.cli.output import bar, rounded, short
from pouw.cli.output import score as shown
from pouw.cli.prune import prune

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pouw.ledger.headerfile import HeaderFile
    from pouw.roles.node import AuditReport


@click.group()
def node() -> None:
    """Recheck the past of an arena."""


node.add_command(compare)
node.add_command(confirmations)
node.add_command(prune)


@node.command(
    epilog=example(
        "pouw node audit --config node.toml --rescore all",
        "pouw node audit --from 100 --provenance --ray 10.0.0.5:6379",
    )
)
@settings_options(*READER, "home")
@click.option(
    "--rescore",
    type=click.Choice(["none", "winners", "all"]),
    default="winners",
    show_default=True,
    help="Which revealed models to score again (needs pouw[ml]).",
)
@click.option(
    "--from",
    "first",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="ROUND",
    help="Report and score from this round on; the rules are replayed from the first.",
)
@click.option(
    "--provenance",
    is_flag=True,
    help="Train segments of winners again, where their task asks for provenance.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Score the cases of a model in so many processes.",
)
@click.option("--ray", metavar="ADDRESS", help="Score on the Ray cluster there (long histories).")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write the report (JSON)."
)
@click.pass_context
def audit(
    ctx: click.Context, /, call: Call, *, first: int, out: Path | None, **options: Any
) -> None:
    """Replay the arena's history, recheck every header, payment and winning model.

    Exit code 0: all agrees; 2: something is false or altered, and is named; 3: nothing false, but
    something cannot be rechecked.
    """
    import json

    from pouw.roles.capacity import OracleOptions
    from pouw.roles.node import AuditOptions
    from pouw.roles.node import audit as audit_rounds

    scoring = OracleOptions(processes=options["processes"], ray=options["ray"])
    chosen = AuditOptions(options["rescore"], first, options["provenance"], scoring)
    with bar() as progress:
        report = audit_rounds(observer_for(call.settings, reads_store=True), chosen, progress)
    document = report.to_json()
    if out is not None:
        out.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    call.output.result(document, lambda: _report(report))
    ctx.exit(report.exit_code)


def _report(report: AuditReport) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("round", "task", "verdict", "winner", "claim", "measured", "paid", "audit")
    for one in report.rounds:
        table.add_row(
            str(one.round),
            str(one.task),
            one.verdict,
            short(one.winner) if one.winner else "-",
            shown(one.claim_ppm),
            shown(one.measured_ppm),
            rounded(one.paid_wei),
            f"{one.result.value} (marginal)" if one.marginal else one.result.value,
        )
    lines = [
        f"round {one.round}: {problem.rule}: {problem.detail}"
        for one in report.rounds
        for problem in one.problems
    ]
    lines += [f"arena: {problem.rule}: {problem.detail}" for problem in report.problems]
    verdict = {0: "everything agrees", 2: "NOT TRUE", 3: "not everything can be rechecked"}
    lines.append(f"audited up to block {report.block_number}: {verdict[report.exit_code]}")
    return Group(table, *(Text(line) for line in lines))


@node.command(epilog=example("pouw node sync --rpc https://rpc.example.org"))
@settings_options(*CHAIN, "home")
def sync(call: Call) -> None:
    """Follow the chain into the node's index; audits go on from there.

    Ranges are as wide as the endpoint lets them be. May be stopped and started again at any moment;
    what a reorganisation took back is read again.
    """
    from pouw.chain.index import EventIndex

    observer = observer_for(call.settings)
    index = EventIndex(observer.home, observer.arena, observer.from_block)
    try:
        with bar() as progress:
            done = index.sync(
                observer.confirmations, lambda at, total: progress("read the chain", at, total)
            )
    finally:
        index.close()
    document = {
        "block": done.block,
        "new_events": done.new_events,
        "taken_back": done.taken_back,
        "index": str(index.path),
    }
    reached = "no block is confirmed yet" if done.block is None else f"up to block {done.block}"
    told = f", {done.taken_back} block(s) were taken back" if done.taken_back else ""
    call.output.result(document, f"{done.new_events} new event(s), {reached}{told}")


@node.command(epilog=example("pouw node headers --config node.toml"))
@settings_options(*READER, "home")
def headers(call: Call) -> None:
    """The hash-linked headers of all closed rounds, with the tasks each left unfinished."""
    from pouw.ledger.headerfile import HeaderFile
    from pouw.roles.follow import read_history

    file = HeaderFile.of(read_history(observer_for(call.settings)))
    call.output.result(file.model_dump(mode="json", by_alias=True), lambda: _headers(file))


def _headers(file: HeaderFile) -> RenderableType:
    from rich.table import Table

    table = Table("round", "header", "parent", "task", "verdict", "winner", "score", "unfinished")
    for one in file.headers:
        table.add_row(
            str(one.number),
            short(one.hash),
            short(one.parent),
            str(one.task),
            one.verdict,
            short(one.winner),
            shown(one.score_ppm),
            ", ".join(map(str, one.unfinished)) or "-",
        )
    return table
