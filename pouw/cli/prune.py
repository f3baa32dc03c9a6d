"""``pouw node prune``: let go of models that are not worth their space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pouw.cli.adapters import local_store, observer_for
from pouw.cli.options import READER, Call, example, settings_options
from pouw.cli.output import score, short
from pouw.cli.values import SCORE

if TYPE_CHECKING:
    from pouw.roles.prune import Pruned, Pruning


@click.command(
    epilog=example("pouw node prune --keep high-accuracy --dry-run", "pouw node prune --keep best")
)
@click.option(
    "--keep",
    type=click.Choice(["best", "high-accuracy"]),
    required=True,
    help="The best model of every task, or every true claim close to it.",
)
@click.option("--margin", type=SCORE, help="How close: Dice below the best of its task (0.01).")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option(
    "--grace",
    type=click.IntRange(min=0),
    default=3600,
    show_default=True,
    help="Spare blocks that were added in the last so many seconds.",
)
@settings_options(*READER, "home")
def prune(call: Call, keep: str, margin: int | None, dry_run: bool, grace: int) -> None:
    """Remove revealed models of closed rounds from --store, the worst first.

    Documents, archives and headers stay. An audit says of pruned models that they can no longer be
    scored again.
    """
    from pouw.ledger.forkchoice import HIGH_ACCURACY_MARGIN_PPM
    from pouw.ledger.pruning import Keep
    from pouw.roles.prune import carry_out, plan

    observer = observer_for(call.settings, reads_store=True)
    pruning = plan(observer, Keep(keep), HIGH_ACCURACY_MARGIN_PPM if margin is None else margin)
    if not dry_run:
        store = local_store(call.settings)
        pruning = carry_out(observer, pruning, lambda: store.gc(grace))
    call.output.result(_document(pruning), lambda: _table(pruning))


def _document(pruning: Pruning) -> dict[str, Any]:
    return {
        "dry_run": pruning.blocks is None,
        "freed_bytes": pruning.freed_bytes,
        "removed_blocks": pruning.blocks,
        "models": [
            {
                "round": one.retention.round,
                "miner": one.retention.reveal.miner,
                "claim_ppm": one.retention.reveal.claim,
                "kept": one.retention.kept,
                "reason": one.retention.reason,
                "bytes": one.bytes,
                "cids": list(one.cids),
            }
            for one in pruning.models
        ],
    }


def _table(pruning: Pruning) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("round", "miner", "claim", "here", "becomes", "because")
    for one in pruning.models:
        table.add_row(
            str(one.retention.round),
            short(one.retention.reveal.miner),
            score(one.retention.reveal.claim),
            f"{one.bytes / 1e6:.1f} MB",
            _fate(one, dry_run=pruning.blocks is None),
            one.retention.reason,
        )
    freed = f"{pruning.freed_bytes / 1e6:.1f} MB"
    if pruning.blocks is None:
        return Group(table, Text(f"a dry run: {freed} would go"))
    return Group(table, Text(f"{freed} let go, {pruning.blocks} blocks removed"))


def _fate(one: Pruned, *, dry_run: bool) -> str:
    if one.retention.kept:
        return "kept"
    if not one.cids:
        return "not here"
    return "would go" if dry_run else "gone"
