"""``pouw account``: keystores."""

from __future__ import annotations

from pathlib import Path

import click

from pouw.cli.options import Call, example, settings_options
from pouw.errors import ConfigError


@click.group()
def account() -> None:
    """Make the account that a role signs with."""


@account.command(epilog=example("POUW_PASSWORD_FILE=secret pouw account new miner.json"))
@settings_options()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def new(call: Call, file: Path) -> None:
    """Write a fresh account to the new keystore FILE (version 3, scrypt).

    The password comes from POUW_PASSWORD or POUW_PASSWORD_FILE.
    """
    from pouw.chain.accounts import create_keystore

    password = call.settings.password
    if not password:
        raise ConfigError(
            "a keystore needs a password",
            hint="set POUW_PASSWORD_FILE to the path of a file that only you can read",
        )
    address = create_keystore(file, password).address
    call.output.result(
        {"address": address, "keystore": str(file)},
        f"{address} (in {file}; keep file and password)",
    )
