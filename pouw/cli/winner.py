"""``pouw publisher model``: the model that was paid for, as files."""

from __future__ import annotations

from pathlib import Path

import click

from pouw.cli.adapters import observer_for
from pouw.cli.options import READER, Call, example, settings_options
from pouw.cli.output import score as shown


@click.command(
    epilog=example(
        "pouw publisher model 5 --out won",
        "pouw publisher model 2 --round --out won --store content,http://miner.example:8088",
    )
)
@settings_options(*READER, "home")
@click.argument("number", metavar="TASK", type=click.IntRange(min=1))
@click.option("--round", "is_round", is_flag=True, help="The number is a round's, not a task's.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for model.safetensors, spec.json and manifest.json.",
)
def model(call: Call, *, number: int, is_round: bool, out: Path) -> None:
    """Fetch the model that won TASK, with its spec and manifest.

    It is found in the confirmed history and every block is verified; anybody may, no account is
    needed.
    """
    from pouw.roles.follow import read_history
    from pouw.roles.winner import bring, round_of, winner_of
    from pouw.types import RoundNumber, TaskId

    observer = observer_for(call.settings, reads_store=True)
    history = read_history(observer)
    ended = RoundNumber(number) if is_round else round_of(history, TaskId(number))
    won = winner_of(history, ended)
    bought = bring(observer.store, won, out)
    record = won.record
    document = {
        "task": record.task.task_id,
        "round": record.number,
        "title": bought.spec.title,
        "winner": record.winner,
        "claim_ppm": won.reveal.claim,
        "model": str(bought.model_path),
        "spec": str(bought.spec_path),
        "manifest": str(bought.manifest_path),
    }
    call.output.result(
        document,
        f"{bought.spec.title} (task {record.task.task_id}, round {record.number}): "
        f"{record.winner} won with a claimed Dice of {shown(won.reveal.claim)}\n"
        f"model     {bought.model_path}\n"
        f"spec      {bought.spec_path}\n"
        f"manifest  {bought.manifest_path}\n"
        f"next: `pouw predict {bought.model_path} --images SCANS --out LABELS` applies it; "
        f"`pouw score {bought.model_path} FOLDER` measures it on a labelled test set, which "
        "`pouw data split` makes",
    )
