"""``pouw oracle``: score what was revealed, and vote."""

from __future__ import annotations

from typing import Any

import click

from pouw.cli.commands import run_command, show_status
from pouw.cli.loop import loop_options
from pouw.cli.miner import given
from pouw.cli.options import ACTOR, Call, example, settings_options


@click.group()
def oracle() -> None:
    """Score the revealed models and vote, as a member of the committee."""


@oracle.command(
    epilog=example(
        "pouw oracle run --config oracle.toml --processes 4",
        "pouw oracle run --config oracle.toml --ray 10.0.0.5:6379",
    )
)
@settings_options(*ACTOR)
@loop_options
@click.option(
    "--processes",
    type=click.IntRange(min=1, max=1024),
    help="Score the cases of a model in so many processes, of one CPU thread each, so that no "
    "score depends on how many there are.",
)
@click.option(
    "--ray", metavar="ADDRESS", help="Score on the Ray cluster there: in every free processor."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]))
@click.option(
    "--model-seconds",
    type=click.FloatRange(min=1),
    help="End a scoring process that takes longer over one case; that condemns no model.",
)
@click.option(
    "--report-margin",
    "report_margin_seconds",
    type=click.IntRange(min=1),
    help="Seconds before the end of the report window at which it votes without missing content.",
)
def run(
    call: Call, *, once: bool, poll_seconds: float, while_stdin_open: bool, **options: Any
) -> None:
    """Score in rank order, stop at the first true claim, vote only for what was computed here."""
    from pouw.roles.oracle import Oracle, OracleOptions

    chosen = OracleOptions(**given(options))
    run_command(
        call,
        lambda setup: Oracle(setup, chosen),
        once=once,
        poll_seconds=poll_seconds,
        while_stdin_open=while_stdin_open,
    )


@oracle.command(epilog=example("pouw oracle status --config oracle.toml"))
@settings_options("home")
def status(call: Call) -> None:
    """What `pouw oracle run` last said of itself, when, and whether it runs."""
    show_status(call)
