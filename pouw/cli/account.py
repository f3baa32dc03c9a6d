"""``pouw account``: keystores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from pouw.cli.options import Call, example, settings_options
from pouw.errors import ConfigError

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_MAX_KEY_CHARACTERS: Final = 1024


@click.group()
def account() -> None:
    """Make the account that a role signs with."""


@account.command(epilog=example("POUW_PASSWORD_FILE=secret pouw account new miner.json"))
@settings_options()
@click.argument("file", type=_FILE)
def new(call: Call, file: Path) -> None:
    """Write a fresh account to the new keystore FILE (version 3, scrypt).

    The password comes from POUW_PASSWORD or POUW_PASSWORD_FILE.
    """
    _write(call, file, None)


@account.command(
    "import",
    epilog=example(
        "POUW_PASSWORD_FILE=secret pouw account import me.json --key private-key",
        "POUW_PASSWORD_FILE=secret pouw account import me.json --devnet 0",
    ),
)
@settings_options()
@click.argument("file", type=_FILE)
@click.option(
    "--key",
    type=click.File("r", errors="replace"),
    help="File with the private key, 64 hexadecimal digits (default: standard input).",
)
@click.option(
    "--devnet",
    type=click.IntRange(0, 9),
    help="One of the ten accounts that `pouw devnet` and anvil fund: anybody has their keys.",
)
def import_key(call: Call, file: Path, key: IO[str] | None, devnet: int | None) -> None:
    """Write the account of a private key to the new keystore FILE (version 3, scrypt).

    The key is read from a file or from standard input, never from the command line. The password
    comes from POUW_PASSWORD or POUW_PASSWORD_FILE.
    """
    from pouw.chain.accounts import account_of_key, dev_account

    if devnet is not None:
        if key is not None:
            raise click.UsageError("--key and --devnet are two accounts: give one")
        chosen = dev_account(devnet)
    elif key is None and sys.stdin.isatty():
        chosen = account_of_key(click.prompt("private key", hide_input=True, err=True))
    else:
        source = key or click.open_file("-", errors="replace")
        chosen = account_of_key(source.read(_MAX_KEY_CHARACTERS))
    _write(call, file, chosen)


def _write(call: Call, file: Path, chosen: LocalAccount | None) -> None:
    from pouw.chain.accounts import create_keystore

    password = call.settings.password
    if not password:
        raise ConfigError(
            "a keystore needs a password",
            hint="set POUW_PASSWORD_FILE to the path of a file that only you can read",
        )
    address = create_keystore(file, password, chosen).address
    call.output.result(
        {"address": address, "keystore": str(file)},
        f"{address} (in {file}; keep file and password)",
    )
