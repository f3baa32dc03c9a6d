"""``pouw miner``: train and compete."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from pouw.cli.commands import run_command, show_status
from pouw.cli.loop import loop_options
from pouw.cli.options import ACTOR, Call, Command, example, settings_options
from pouw.ml.requests import MAX_PROCESSES
from pouw.parallel import usable_cores

# Batches are small; whoever measured that more threads help can ask for them.
MOST_THREADS = 16


@click.group()
def miner() -> None:
    """Train models, commit, reveal, be paid."""


def miner_options(command: Command) -> Command:
    """Options of everything that mines; defaults are those of ``MinerOptions``, but for threads."""
    for option in (
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            help="CPU threads for training, of each process; the own model is scored in as many "
            "processes.  "
            f"[default: a share of the cores at hand, at most {MOST_THREADS}]",
        ),
        click.option(
            "--processes",
            type=click.IntRange(1, MAX_PROCESSES),
            help="Processes that train together, by torchrun: one a GPU.",
        ),
        click.option(
            "--trial/--no-trial",
            default=None,
            help="Choose the fastest correct arithmetic before Phase 1 (default) or plain float32.",
        ),
        click.option(
            "--compile/--no-compile",
            default=None,
            help="Let the trial compile the network as well (takes minutes and a C++ compiler).",
        ),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"])),
        click.option(
            "--training-seconds", type=click.IntRange(min=1), help="Train no longer than this."
        ),
        click.option("--max-steps", type=click.IntRange(min=1), help="Train no more steps."),
        click.option(
            "--margin-ppm",
            type=click.IntRange(min=0),
            help="What a claim leaves off the measured score, in ppm; more for tiny test sets.  "
            "[default: 100]",
        ),
        click.option(
            "--commit-margin",
            "commit_margin_seconds",
            type=click.IntRange(min=1),
            help="Seconds before the end of Phase 1 at which the last snapshot is complete; "
            "by default what the time between blocks asks for.",
        ),
        click.option(
            "--first-snapshot",
            "first_snapshot_seconds",
            type=click.IntRange(min=1),
            help="Seconds.",
        ),
        click.option(
            "--snapshot-every", "snapshot_seconds", type=click.IntRange(min=1), help="Seconds."
        ),
    ):
        command = option(command)
    return command


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; the others keep the role's own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def threads_for(processes: int) -> int:
    """CPU threads of each of so many processes where nothing is said: one miner has the machine."""
    return max(1, min(usable_cores() // processes, MOST_THREADS))


@miner.command(epilog=example("pouw miner run --config miner.toml --device auto --threads 4"))
@settings_options(*ACTOR)
@loop_options
@miner_options
def run(
    call: Call, *, once: bool, poll_seconds: float, while_stdin_open: bool, **options: Any
) -> None:
    """Train through every Phase 1, commit early and better, reveal, reclaim, withdraw.

    May be killed at any moment: started again, it goes on from the last checkpoint.
    """
    from pouw.roles.miner import Miner, MinerOptions

    said = given(options)
    chosen = MinerOptions(**{"threads": threads_for(said.get("processes", 1)), **said})
    run_command(
        call,
        lambda setup: Miner(setup, chosen),
        once=once,
        poll_seconds=poll_seconds,
        while_stdin_open=while_stdin_open,
    )


@miner.command(epilog=example("pouw miner status --config miner.toml"))
@settings_options("home")
def status(call: Call) -> None:
    """What `pouw miner run` last said of itself, when, and whether it runs."""
    show_status(call)


@miner.command(epilog=example("pouw miner watch --home miner"))
@settings_options("home")
def watch(call: Call) -> None:
    """Draw a bar of the training: Dice, time left, projected finish. With --json: once, as data."""
    from pouw.cli.watch import watch as draw
    from pouw.roles.watching import read_training

    if not call.output.as_json:
        draw(call.settings.home)
        return
    state = read_training(call.settings.home)
    call.output.result(None if state is None else asdict(state), "")
