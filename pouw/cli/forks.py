"""``pouw node compare`` and ``pouw node confirmations``: fork choice over verified headers."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pouw.cli.adapters import observer_for
from pouw.cli.options import READER, Call, example, settings_options
from pouw.cli.output import score, short
from pouw.cli.values import SCORE
from pouw.config import Settings
from pouw.errors import LedgerError
from pouw.files import advice

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pouw.ledger.forkchoice import Choice
    from pouw.ledger.headerfile import HeaderFile

_MAX_FILE_BYTES = 1 << 30


@click.command(
    epilog=example(
        "pouw node headers --json > before.json",
        "pouw node compare before.json https://rpc.example.org",
    )
)
@click.argument("chains", nargs=-1, required=True, metavar="CHAIN CHAIN...")
@settings_options(*READER, "home")
def compare(call: Call, chains: tuple[str, ...]) -> None:
    """Say which of several chains of headers to follow, and why.

    A CHAIN is a JSON-RPC endpoint, or a file that `pouw node headers --json` wrote, say before a
    reorganisation. Every chain is verified first. After the headers that all share, the one
    with the most highest-accuracy models of tasks that all knew wins; then the longer one.
    """
    from pouw.ledger.forkchoice import choose

    if len(chains) < 2:
        raise click.UsageError("name at least two chains")
    files = [_read(chain, call.settings) for chain in chains]
    if len({file.genesis for file in files}) != 1:
        raise LedgerError(
            "these are headers of different arenas: "
            + ", ".join(f"{file.arena} on chain {file.chain_id}" for file in files)
        )
    choice = choose([file.verified() for file in files])
    document = {
        "chosen": chains[choice.chosen],
        "reason": choice.reason.value,
        "common": choice.common,
        "chains": [
            {"chain": chain, "closed": len(file.headers), "best_models": best}
            for chain, file, best in zip(chains, files, choice.best_models, strict=True)
        ],
        "contests": [
            {"spec_digest": "0x" + one.spec_digest.hex(), "scores_ppm": list(one.scores_ppm)}
            for one in choice.contests
        ],
    }
    call.output.result(document, lambda: _comparison(chains, choice))


def _read(chain: str, settings: Settings) -> HeaderFile:
    """The headers behind an endpoint or in a file."""
    from pouw.ledger.headerfile import HeaderFile
    from pouw.roles.follow import read_history

    if chain.startswith(("http://", "https://")):
        # Not the node's own index: it follows one chain, and this may be another.
        with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
            elsewhere = replace(settings, rpc=chain, home=Path(scratch))
            return HeaderFile.of(read_history(observer_for(elsewhere)))
    path = Path(chain)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise LedgerError(f"{path} is too large for a file of headers")
        return HeaderFile.parse(path.read_bytes())
    except OSError as error:
        raise LedgerError(
            f"cannot read {path}: {error.strerror}",
            hint=advice(error) or "name an endpoint (http://...) or a file of headers",
        ) from error


def _comparison(chains: tuple[str, ...], choice: Choice) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("task (spec)", *chains)
    for one in choice.contests:
        cells = [
            score(ppm) + (" best" if one.holds_best(place) else "")
            for place, ppm in enumerate(one.scores_ppm)
        ]
        table.add_row(short("0x" + one.spec_digest.hex()), *cells)
    table.add_row("highest-accuracy models", *map(str, choice.best_models))
    return Group(
        table,
        Text(f"headers that all share: {choice.common}"),
        Text(f"follow {chains[choice.chosen]}: {choice.reason.value}"),
    )


@click.command(epilog=example("pouw node confirmations 12 --margin 0.01"))
@click.argument("number", type=click.IntRange(min=1), metavar="ROUND")
@click.option(
    "--margin",
    type=SCORE,
    help="How far below the best model of its task a high-accuracy model may be (0.01).",
)
@settings_options(*READER, "home")
def confirmations(call: Call, number: int, margin: int | None) -> None:
    """Count the later rounds that confirm a round: those with a high-accuracy model."""
    from pouw.ledger.forkchoice import HIGH_ACCURACY_MARGIN_PPM
    from pouw.ledger.forkchoice import confirmations as confirming
    from pouw.ledger.headerfile import HeaderFile
    from pouw.roles.follow import read_history
    from pouw.types import RoundNumber

    headers = HeaderFile.of(read_history(observer_for(call.settings))).verified().headers
    rounds = confirming(
        headers, RoundNumber(number), HIGH_ACCURACY_MARGIN_PPM if margin is None else margin
    )
    document = {"round": number, "confirmations": len(rounds), "confirmed_by": list(rounds)}
    listed = f" (rounds {', '.join(map(str, rounds))})" if rounds else ""
    call.output.result(document, f"round {number} has {len(rounds)} confirmation(s){listed}")
