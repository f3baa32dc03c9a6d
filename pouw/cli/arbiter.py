"""``pouw challenge`` and ``pouw rule``: the second look, where an arena has an arbiter."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click

from pouw.cli.adapters import open_arena
from pouw.cli.arena import show_sent
from pouw.cli.options import CALLER, Call, example, settings_options
from pouw.cli.output import amount
from pouw.cli.values import ADDRESS
from pouw.types import ZERO_ADDRESS, ZERO_WORD, Address, Verdict

_VERDICTS = {
    verdict.name.lower().replace("_", "-"): verdict for verdict in Verdict if verdict.value
}
ROUND = click.argument("number", metavar="ROUND", type=click.IntRange(min=1))


@click.command(epilog=example("pouw challenge 3 --keystore me.json"))
@settings_options(*CALLER)
@ROUND
def challenge(call: Call, number: Any) -> None:
    """Challenge the outcome of ROUND, or its absence; leaves the challenge bond.

    A ruling that changes the outcome brings bond and fee, one that confirms it burns the bond.
    """
    arena = open_arena(call.settings)
    bond = amount(arena.parameters().challenge_bond)
    show_sent(call, f"challenged round {number} with a bond of {bond}", arena.challenge(number))


@click.command(epilog=example("pouw rule 3 winner --winner 0x... --evidence evidence.json"))
@settings_options(*CALLER)
@ROUND
@click.argument("verdict", type=click.Choice(list(_VERDICTS)))
@click.option("--winner", type=ADDRESS, help="Who revealed the highest true claim.")
@click.option(
    "--evidence",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Document whose sha2-256 the header names.",
)
def rule(
    call: Call, number: Any, verdict: str, winner: Address | None, evidence: Path | None
) -> None:
    """Rule on the challenged ROUND, as the arena's arbiter; the ruling is the outcome."""
    if (winner is None) == (verdict == "winner"):
        raise click.UsageError("the verdict `winner` names one with --winner, the others nobody")
    digest = hashlib.sha256(evidence.read_bytes()).digest() if evidence else ZERO_WORD
    arena = open_arena(call.settings)
    receipt = arena.rule(number, _VERDICTS[verdict], winner or ZERO_ADDRESS, digest)
    show_sent(call, f"ruled on round {number}: {verdict}", receipt)
