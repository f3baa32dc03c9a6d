"""``pouw deploy``, and the calls that anybody may make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pouw.cli.adapters import load_account, open_arena, policy_of
from pouw.cli.options import CALLER, Call, Command, example, settings_options
from pouw.cli.output import amount, duration
from pouw.cli.values import ADDRESS, AMOUNT
from pouw.errors import ConfigError
from pouw.types import ZERO_ADDRESS, Address, Parameters

if TYPE_CHECKING:
    from pouw.chain.carrier import Receipt

_MINUTE, _HOUR = 60, 3600


def _seconds(name: str, default: int, text: str, *, least: int = 1) -> Callable[[Command], Command]:
    return click.option(
        name, type=click.IntRange(min=least), default=default, show_default=True, help=text
    )


@click.command(
    epilog=example(
        "pouw deploy --keystore me.json --phase1 3600 --threshold 2 \\",
        "    --oracle 0x... --oracle 0x... --oracle 0x...",
    )
)
@settings_options("rpc", "keystore", "confirmations", "max_fee_gwei")
@_seconds("--phase1", 24 * _HOUR, "Training: seconds of Phase 1.")
@_seconds("--key-window", 15 * _MINUTE, "Seconds to release a key.")
@_seconds("--reveal-window", 30 * _MINUTE, "Seconds to reveal.")
@_seconds("--report-window", 2 * _HOUR, "Seconds for the oracles' votes.")
@_seconds("--challenge-window", 0, "Seconds to challenge (needs an arbiter).", least=0)
@_seconds("--ruling-window", 0, "Seconds to rule (needs an arbiter).", least=0)
@click.option("--oracle", "oracles", type=ADDRESS, multiple=True, required=True, help="A member.")
@click.option("--threshold", type=click.IntRange(1, 16), help="Votes (default: a majority).")
@click.option("--arbiter", type=ADDRESS, default=None, help="Rules on challenges.")
@click.option("--asset", type=ADDRESS, default=None, help="An ERC-20 (default: ether).")
@click.option("--min-reward", type=AMOUNT, default="0.01ether", show_default=True)
@click.option("--miner-bond", type=AMOUNT, default="0.01ether", show_default=True)
@click.option("--challenge-bond", type=AMOUNT, default="0.1ether", show_default=True)
@click.option(
    "--publisher-bond-bps",
    type=click.IntRange(0, 10_000),
    default=1_000,
    show_default=True,
    help="Publisher's bond in 1/10,000 of the reward.",
)
@click.option(
    "--oracle-fee-bps",
    type=click.IntRange(0, 10_000),
    default=500,
    show_default=True,
    help="The committee's fee in 1/10,000 of the reward.",
)
def deploy(
    call: Call,
    *,
    asset: Address | None,
    arbiter: Address | None,
    threshold: int | None,
    oracles: tuple[Address, ...],
    **options: int,
) -> None:
    """Deploy an arena. Its parameters are fixed for ever; it has no owner."""
    from pouw.chain.arena import deploy as deploy_arena
    from pouw.chain.rpc import Endpoint
    from pouw.chain.tx import Sender

    parameters = Parameters(
        asset=asset or ZERO_ADDRESS,
        arbiter=arbiter or ZERO_ADDRESS,
        oracles=oracles,
        threshold=threshold or len(oracles) // 2 + 1,
        **options,
    )
    settings = call.settings
    endpoint = Endpoint.connect(settings.rpc)
    before = endpoint.block_number()
    sender = Sender(endpoint, load_account(settings), policy=policy_of(settings))
    arena = deploy_arena(sender, parameters)
    block = arena.deployment_block(before)
    call.output.result(
        {"arena": arena.address, "from_block": block, "chain_id": arena.chain_id},
        f"# Arena on chain {arena.chain_id}; in pouw.toml:\n"
        f'arena = "{arena.address}"\nfrom_block = {block}\n'
        f"# {_lengths(parameters)}",
    )


def _lengths(parameters: Parameters) -> str:
    """How long an interval and a round take, which nothing can change any more."""
    phase2 = parameters.phase2
    return (
        f"a task that is selected waits {duration(phase2)} for its data key, and its round takes "
        f"{duration(parameters.phase1 + phase2)} from there"
    )


@click.command(epilog=example("pouw sync --keystore me.json"))
@settings_options(*CALLER)
def sync(call: Call) -> None:
    """Settle the pool: drop a selected task whose key did not come, select the next."""
    show_sent(call, "synced", open_arena(call.settings).sync())


@click.command(epilog=example("pouw finalize --keystore me.json"))
@settings_options(*CALLER)
def finalize(call: Call) -> None:
    """Close the live round once it is decided: credit everybody, write the header."""
    show_sent(call, "closed", open_arena(call.settings).finalize())


@click.command(epilog=example("pouw reclaim 3 --keystore me.json"))
@settings_options(*CALLER)
@click.argument("number", metavar="ROUND", type=click.IntRange(min=1))
@click.option("--miner", type=ADDRESS, help="Whose bond (default: the keystore's account).")
def reclaim(call: Call, number: Any, miner: Any) -> None:
    """Credit a revealer's bond of the closed ROUND: back to the miner, or burned."""
    arena = open_arena(call.settings)
    show_sent(call, "settled the bond", arena.reclaim(number, miner or arena.sender.address))


@click.command(epilog=example("pouw withdraw --keystore me.json"))
@settings_options(*CALLER)
@click.option("--to", type=ADDRESS, help="Where to (default: the keystore's account).")
def withdraw(call: Call, to: Any) -> None:
    """Take the account's whole credit."""
    arena = open_arena(call.settings)
    credit = arena.credit(arena.sender.address)
    if not credit:
        raise ConfigError(
            f"{arena.sender.address} has no credit",
            hint="bonds are credited by `pouw reclaim ROUND` once the round is closed",
        )
    show_sent(call, f"withdrew {amount(credit)}", arena.withdraw(to))


def show_sent(call: Call, what: str, receipt: Receipt) -> None:
    """Print what a transaction did, and where it is."""
    digest = "0x" + receipt.transaction_hash.hex()
    document = {
        "transaction": digest,
        "block": receipt.block_number,
        "gas_used": receipt.gas_used,
        "fee_wei": str(receipt.fee_wei),
    }
    call.output.result(document, f"{what}: transaction {digest} in block {receipt.block_number}")
