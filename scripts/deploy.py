"""Deploy an arena from an ape account, with the bytecode that the package carries.

``ape run deploy arena --network … --account … --parameters arena.json`` deploys;
``ape run deploy one … --spec 0x… --key-hash 0x… --reward …`` deploys an arena of one task, which
is selected at once: nobody's richer task is before it, and Phase 1 begins one Phase 2 later.
Flags override the file, the file overrides the defaults below.
``ape run deploy token … --arena 0x…`` deploys the block reward of an arena, a `PouwToken`.
"""

from __future__ import annotations

import json
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import ape
import click
from ape.cli import ConnectedProviderCommand, account_option
from ape.contracts import ContractContainer
from ethpm_types import ContractType

from pouw.types import ZERO_ADDRESS, Parameters
from scripts._task import Publication, artifact, publish, task_options

MINUTE, HOUR = 60, 3_600
ETHER = 10**18
DEFAULTS: dict[str, Any] = {
    "asset": ZERO_ADDRESS,
    "phase1": 6 * HOUR,
    "key_window": 15 * MINUTE,
    "reveal_window": HOUR,
    "report_window": 6 * HOUR,
    "min_reward": ETHER // 100,
    "publisher_bond_bps": 1_000,
    "oracle_fee_bps": 500,
    "miner_bond": ETHER // 200,
    "challenge_bond": ETHER // 50,
    "arbiter": ZERO_ADDRESS,
}
ARBITRATED = {"challenge_window": 12 * HOUR, "ruling_window": 12 * HOUR}


def parameter_options(command: Any) -> Any:
    """One flag for every field of Parameters, and the file."""
    for field in reversed(fields(Parameters)):
        if field.name == "oracles":
            option = click.option("--oracle", "oracles", multiple=True, help="Once for each.")
        else:
            kind = str if field.type == "Address" else click.IntRange(0)
            option = click.option(f"--{field.name.replace('_', '-')}", field.name, type=kind)
        command = option(command)
    return click.option(
        "--parameters", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path)
    )(command)


def parameters_of(file: Path | None, flags: dict[str, Any]) -> Parameters:
    """Defaults, then the file, then the flags that were given."""
    named = dict(DEFAULTS)
    if file is not None:
        named |= json.loads(file.read_text(encoding="utf-8"))
    named |= {name: value for name, value in flags.items() if value not in (None, ())}
    unknown = named.keys() - {field.name for field in fields(Parameters)}
    if unknown:
        raise click.UsageError(f"no such parameter: {', '.join(sorted(unknown))}")
    if not named.get("oracles"):
        raise click.UsageError("an arena needs a committee: name each member with --oracle")
    named["oracles"] = tuple(named["oracles"])
    named.setdefault("threshold", len(named["oracles"]) // 2 + 1)
    for window, usual in ARBITRATED.items():
        named.setdefault(window, 0 if named["arbiter"] == ZERO_ADDRESS else usual)
    return Parameters(**named)


def container(name: str) -> ContractContainer:
    """What the package carries, as a contract of ape's that can be deployed."""
    content = artifact(name)
    kind = ContractType(
        contractName=content["contract"],
        abi=content["abi"],
        deploymentBytecode={"bytecode": content["bytecode"]},
    )
    return ContractContainer(kind)


def deploy(parameters: Parameters, account: Any) -> Any:
    """The arena, as a contract of ape's."""
    return account.deploy(container("PoUW"), astuple(parameters))


@click.group()
def cli() -> None:
    """Deploy an arena, an arena of one task, or the block reward of an arena."""


@cli.command(cls=ConnectedProviderCommand)
@account_option()
@parameter_options
def arena(account: Any, file: Path | None, **flags: Any) -> None:
    """Deploy an arena."""
    contract = deploy(parameters_of(file, flags), account)
    click.echo(json.dumps({"arena": contract.address}))


@cli.command(cls=ConnectedProviderCommand)
@account_option()
@parameter_options
@task_options
def one(account: Any, file: Path | None, **flags: Any) -> None:
    """Deploy an arena and publish its only task, which is selected at once."""
    task = Publication(**{field.name: flags.pop(field.name) for field in fields(Publication)})
    contract = deploy(parameters_of(file, flags), account)
    task_id = publish(contract, task, account)
    click.echo(json.dumps({"arena": contract.address, "task": task_id}))


@cli.command(cls=ConnectedProviderCommand)
@account_option()
@click.option("--arena", "address", required=True, help="Address of the arena.")
@click.option(
    "--first-reward",
    type=click.IntRange(1),
    default=50 * ETHER,
    show_default=True,
    help="What the first rounds mint, in the token's smallest unit.",
)
@click.option(
    "--halving-rounds",
    type=click.IntRange(1),
    default=210_000,
    show_default=True,
    help="Rounds after which the reward halves.",
)
def token(account: Any, address: str, first_reward: int, halving_rounds: int) -> None:
    """Deploy an arena's block reward: capped, halving, minted once for every round with a winner.

    Anybody may deploy one, and a second one: the arena knows none of them.
    """
    arena = ape.Contract(address, abi=artifact()["abi"])
    try:
        arena.lastHeader()
    except ape.exceptions.ApeException as error:
        raise click.UsageError(f"{address} is no arena: {error}") from error
    contract = account.deploy(container("PouwToken"), arena, first_reward, halving_rounds)
    click.echo(json.dumps({"token": contract.address, "cap": str(contract.cap())}))
