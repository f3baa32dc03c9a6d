"""Deploy an arena from an ape account, with the bytecode that the package carries.

``ape run deploy arena --network … --account … --parameters arena.json`` deploys;
``ape run deploy one … --spec 0x… --key-hash 0x… --reward …`` deploys an arena of one task, which
is selected at once. Flags override the file, the file overrides the defaults below.
"""

from __future__ import annotations

import json
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

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


def deploy(parameters: Parameters, account: Any) -> Any:
    """The arena, as a contract of ape's."""
    content = artifact()
    kind = ContractType(
        contractName=content["contract"],
        abi=content["abi"],
        deploymentBytecode={"bytecode": content["bytecode"]},
    )
    return account.deploy(ContractContainer(kind), astuple(parameters))


@click.group()
def cli() -> None:
    """Deploy an arena."""


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
