"""Publish one task from an ape account; `pouw publisher publish` seals the data first.

``ape run publish_task --network … --account … --arena 0x… --spec 0x… --key-hash 0x… …``
"""

from __future__ import annotations

import json
from typing import Any

import ape
import click
from ape.cli import ConnectedProviderCommand, account_option

from scripts._task import Publication, artifact, publish, task_options


@click.command(cls=ConnectedProviderCommand)
@account_option()
@click.option("--arena", required=True, help="Address of the arena.")
@task_options
def cli(account: Any, arena: str, **task: Any) -> None:
    """Publish a task whose archives and spec are in the store already."""
    contract = ape.Contract(arena, abi=artifact()["abi"])
    task_id = publish(contract, Publication(**task), account)
    click.echo(json.dumps({"arena": contract.address, "task": task_id}))
