"""``pouw demo``: the command."""

from __future__ import annotations

import datetime
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from pouw.cli.options import Call, example, settings_options
from pouw.cli.output import console
from pouw.errors import ConfigError

if TYPE_CHECKING:
    from pouw.cli.demo.story import Stage
    from pouw.cli.demo.summary import RoundSummary

_DEFAULT_FOLDER: Final = Path("demo")
# One thread a process: nine of them share the machine.
_ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@click.command(
    epilog=example("pouw demo", "pouw demo --rpc http://127.0.0.1:8545 --out anvil-demo")
)
@settings_options()
@click.option("--rpc", metavar="URL", help="A chain with the usual development accounts (anvil).")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="New or empty folder for everything (default: demo/TIME).",
)
def demo(call: Call, rpc: str | None, out: Path | None) -> None:
    """Watch two whole rounds on this machine: real MRI, real training, real money moving.

    A 2D and a 3D task, three honest miners, one who over-claims, one who copies, three oracles, and
    at the end a new node that audits it all: separate processes that share only a chain and a
    store. Takes about seven minutes on two cores.
    """
    from pouw.cli.demo.children import ChildEnded, Children
    from pouw.cli.demo.conclusion import conclude
    from pouw.cli.demo.screen import open_screen
    from pouw.cli.demo.story import play

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = _new_folder(out)
    with Children(folder / "logs", _ENVIRONMENT) as children:
        try:
            with open_screen() as screen:
                stage = play(folder, rpc, screen, children)
            rounds, wrong = conclude(folder, stage)
        except ChildEnded as error:
            call.output.notice(error.lines)
            raise
    _finish(call, folder, stage, rounds, wrong)


def _finish(
    call: Call, folder: Path, stage: Stage, rounds: list[RoundSummary], wrong: list[str]
) -> None:
    """Print the tables, where everything is, and the closing line; exit code 1 where it failed."""
    from pouw.cli.demo.summary import closing_line, tables

    console(err=call.output.as_json).print(tables(rounds))
    for line in wrong:
        call.output.notice(f"failed: {line}")
    if not call.output.as_json:
        click.echo(_guide(folder, stage))
    line = closing_line(rounds)
    (folder / "summary.json").write_text(line + "\n")
    click.echo(line)
    if wrong:
        call.output.notice(f"error: the demo failed {len(wrong)} of its checks (see above)")
        click.get_current_context().exit(1)


def _guide(folder: Path, stage: Stage) -> str:
    shown = os.path.relpath(folder)
    shown = str(folder) if shown.startswith("..") else shown
    again = f"  pouw devnet --data {shown}/chain --port {urlsplit(stage.rpc).port}"
    chain = [again] if (folder / "chain").exists() else []
    return "\n".join(
        (
            f"{shown}/rounds/*: pictures, curves, specs, manifests, evidence; "
            f"{shown}/audit.json: the audit",
            "look around:",
            *chain,
            f"  cd {shown} && pouw status && pouw node headers && pouw node audit",
        )
    )


def _new_folder(out: Path | None) -> Path:
    stamp = datetime.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = (out or _DEFAULT_FOLDER / stamp).absolute()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", hint="name a new folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {folder}: {error.strerror}") from error
    return folder
