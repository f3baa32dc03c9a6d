"""What every command takes, and the record it gets: settings read once, and where output goes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from pouw.cli.output import Output
from pouw.cli.values import ADDRESS
from pouw.config import Settings, read_settings

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation of a command."""

    settings: Settings
    output: Output


_PATH: Final = click.Path(path_type=Path)
_DEFAULT: Final = Settings()
_SETTINGS: Final[dict[str, Callable[[Command], Command]]] = {
    "rpc": click.option(
        "--rpc",
        metavar="URL",
        help=f"JSON-RPC endpoint of the chain (default: {_DEFAULT.rpc}).",
    ),
    "arena": click.option("--arena", type=ADDRESS, help="Address of the arena's contract."),
    "from_block": click.option(
        "--from-block",
        type=click.IntRange(min=0),
        help="Block of the arena's deployment (default: looked for).",
    ),
    "confirmations": click.option(
        "--confirmations",
        type=click.IntRange(min=0),
        help="Act on a block once so many blocks, itself included, confirm it "
        f"(default: {_DEFAULT.confirmations}).",
    ),
    "max_fee_gwei": click.option(
        "--max-fee-gwei",
        type=click.IntRange(min=1),
        help="Most that a unit of gas may cost; fees are raised so far to meet a deadline "
        f"(default: {_DEFAULT.max_fee_gwei}).",
    ),
    "store": click.option(
        "--store",
        metavar="PLACES",
        help="Public content: folder, ipfs:ADDRESS or URL of a gateway; with commas, ours first "
        f"(default: {','.join(_DEFAULT.store)} below the current folder).",
    ),
    "home": click.option(
        "--home",
        type=_PATH,
        help="Private folder: journal, unrevealed models "
        f"(default: ~/{_DEFAULT.home.relative_to(Path.home())}).",
    ),
    "keystore": click.option(
        "--keystore",
        type=_PATH,
        help="Account (keystore v3); password in POUW_PASSWORD or POUW_PASSWORD_FILE.",
    ),
}
CHAIN: Final = ("rpc", "arena", "from_block", "confirmations")
READER: Final = (*CHAIN, "store")
ACTOR: Final = (*CHAIN, "max_fee_gwei", "store", "home", "keystore")
CALLER: Final = (*CHAIN, "max_fee_gwei", "home", "keystore")


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Give a command ``--config``, ``--json`` and the named settings; it gets one ``Call`` first.

    Flags come before the environment, and that before the file.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(config: Path | None, as_json: bool, **options: Any) -> Any:
            flags = {name: options.pop(name) for name in names}
            settings = read_settings({**flags, "config": config}, os.environ, Path.cwd())
            return command(Call(settings, Output(as_json=as_json)), **options)

        decorated: Command = wrapper
        for option in (
            click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
            click.option(
                "--config",
                type=_PATH,
                help="Settings file (default: pouw.toml where there is one).",
            ),
        ):
            decorated = option(decorated)
        for name in reversed(names):
            decorated = _SETTINGS[name](decorated)
        return decorated

    return decorate


def example(*lines: str) -> str:
    """An epilog for ``--help``."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
