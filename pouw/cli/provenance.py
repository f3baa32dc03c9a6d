"""``pouw provenance``: train a revealed model's segments again (paper, 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pouw.cli.adapters import observer_for
from pouw.cli.options import READER, Call, example, settings_options
from pouw.cli.output import short
from pouw.cli.values import ADDRESS

if TYPE_CHECKING:
    from pouw.documents import SegmentReplay
    from pouw.roles.verification import Verification
    from pouw.types import Address, RoundNumber


@click.group()
def provenance() -> None:
    """Check that a revealed model was trained as its manifest says."""


@provenance.command(
    epilog=example(
        "pouw provenance verify 2 --config node.toml",
        "pouw provenance verify 2 --miner 0x2Fcb07a7a2E3bd9Dc044c8FCb3744de456AeBDF3 --segments 10",
    )
)
@settings_options(*READER, "home")
@click.argument("number", metavar="ROUND", type=click.IntRange(min=1))
@click.option("--miner", type=ADDRESS, help="Whose model (default: the winner's).")
@click.option(
    "--segments",
    type=click.IntRange(min=0),
    help="How many to train again (default: as many as the spec asks for, else all); "
    "0: only check the links.",
)
@click.pass_context
def verify(
    ctx: click.Context,
    call: Call,
    number: RoundNumber,
    miner: Address | None,
    segments: int | None,
) -> None:
    """Check the checkpoints of a model revealed in ROUND, and train drawn segments again.

    On the software, processor and number of threads that the manifest names every bit has to agree;
    elsewhere each layer has to end within a bound. Exit code 0: nothing speaks against the model;
    2: it was not trained as its manifest says; 3: something cannot be told.
    """
    from pouw.roles.verification import VerifyOptions, verify

    found = verify(
        observer_for(call.settings, reads_store=True),
        VerifyOptions(number=number, miner=miner, segments=segments),
        lambda stage, done, total: call.output.notice(f"{stage} ({done} of {total})"),
    )
    call.output.result(found.to_json(), _lines(found))
    ctx.exit(found.exit_code)


def _lines(found: Verification) -> str:
    head = f"round {found.round}, {short(found.miner)}, policy {found.policy}"
    if found.fault:
        return f"{head}\nNOT AS IT SAYS: {found.fault}"
    if found.missing:
        return f"{head}\ncannot be told: {found.missing}"
    lines = [head, "checkpoints: linked, all here, the last one holds the model"]
    replay = found.replay
    if replay is not None:
        profile = "equal" if replay.same_profile else "another"
        lines.append(f"trained again on {profile} software and hardware: {replay.device}")
        lines += [_segment(one) for one in replay.segments]
    verdict = {0: "nothing speaks against it", 2: "NOT AS IT SAYS", 3: "not all can be told"}
    return "\n".join([*lines, verdict[found.exit_code]])


def _segment(one: SegmentReplay) -> str:
    line = f"  steps {one.begin_step} to {one.end_step}: {one.outcome}"
    if one.deviation_ppb:
        line += f", off by {one.deviation_ppb / 1e9:.1e} in {one.layer}"
    return f"{line} ({one.detail})" if one.detail else line
