"""Settings: flags before the environment before a file, read once at the edge.

``merge`` is a pure function over three mappings; ``read_settings`` collects them. In the
environment every setting is ``POUW_NAME``, or ``POUW_NAME_FILE`` with the path of a file that holds
it: endpoints and passwords need never be seen in a process list. In the file (``pouw.toml``, TOML)
they are top-level keys, and relative paths start from the file's folder.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import hexdigits
from typing import Any, Final

from eth_utils import to_checksum_address

from pouw.errors import ConfigError
from pouw.types import ZERO_ADDRESS, Address

CONFIG_FILE: Final = "pouw.toml"
DEFAULT_RPC: Final = "http://127.0.0.1:8545"
_PREFIX: Final = "POUW_"
_SUFFIX: Final = "_FILE"
_PATHS: Final = frozenset({"home", "keystore"})
_ADDRESSES: Final = ("http://", "https://", "ipfs:")
_NUMBERS: Final = frozenset({"confirmations", "from_block", "max_fee_gwei"})
_MAX_FILE_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the chain, the content and the keys are.

    ``store`` are the places of what others can read: written to the first, read from all; each a
    folder, ``ipfs:ADDRESS`` (a daemon's RPC) or the URL of a gateway. ``home`` is private (journal,
    keys, unrevealed models). ``confirmations``: blocks that make one count, itself included.
    ``from_block``: the arena's deployment, where reading of its history begins; None: it is looked
    for. ``max_fee_gwei``: the most that a unit of gas may cost.
    """

    rpc: str = field(default=DEFAULT_RPC, repr=False)
    arena: Address | None = None
    store: tuple[str, ...] = ("pouw-store",)
    home: Path = Path.home() / ".pouw"
    keystore: Path | None = None
    password: str | None = field(default=None, repr=False)
    confirmations: int = 2
    from_block: int | None = None
    max_fee_gwei: int = 500


NAMES: Final = tuple(item.name for item in fields(Settings))


def read_settings(flags: Mapping[str, Any], environment: Mapping[str, str], cwd: Path) -> Settings:
    """The settings of this process; ConfigError where one makes no sense.

    ``flags`` are the command line's, None where one was not given; ``config`` among them, or in
    the environment, names the file, otherwise ``cwd/pouw.toml`` is read where there is one.
    """
    variables = _variables(environment)
    named = flags.get("config") or variables.pop("config", None)
    default = cwd / CONFIG_FILE
    if named is not None:
        file = _read_file(cwd / Path(named).expanduser())
    else:
        file = _read_file(default) if default.is_file() else {}
    given = {name: value for name, value in flags.items() if name != "config"}
    return merge(given, variables, file)


def merge(
    flags: Mapping[str, Any], environment: Mapping[str, Any], file: Mapping[str, Any]
) -> Settings:
    """Settings from three mappings of names to values, the first that has one wins."""
    chosen: dict[str, Any] = {}
    for source, mapping in (("the file", file), ("the environment", environment), ("", flags)):
        for name, value in mapping.items():
            if value is None:
                continue
            if name not in NAMES:
                raise ConfigError(
                    f"{source} sets {name!r}, which is no setting",
                    hint="the settings are " + ", ".join(NAMES),
                )
            chosen[name] = _checked(name, value)
    return Settings(**chosen)


def is_folder(place: str) -> bool:
    """Whether a place of content is a folder, not the address of a daemon or a gateway."""
    return not place.startswith(_ADDRESSES)


def _checked(name: str, value: Any) -> Any:
    if name == "store":
        return _places(value)
    if name in _NUMBERS:
        try:
            number = value if isinstance(value, int) else int(str(value))
        except ValueError as error:
            raise ConfigError(f"{name} is a number, not {value!r}") from error
        if isinstance(value, bool) or number < 0:
            raise ConfigError(f"{name} is a number of at least 0, not {value!r}")
        return number
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(f"{name} is a text, not {value!r}")
    if name in _PATHS:
        return Path(value).expanduser()
    if name == "arena":
        return _address(str(value))
    if name == "rpc" and not str(value).startswith(("http://", "https://")):
        raise ConfigError(
            "rpc is not a JSON-RPC endpoint", hint=f"an address such as {DEFAULT_RPC}"
        )
    return str(value)


def _places(value: Any) -> tuple[str, ...]:
    """The places of content in a list, or in a text with commas between them.

    A folder whose name has a comma can be named in a list, in the file.
    """
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    places = tuple(str(part).strip() for part in parts)
    if not places or not all(places):
        raise ConfigError(
            f"store names places of content, not {value!r}",
            hint="folders, ipfs:ADDRESS and URLs of gateways with commas between, ours first",
        )
    return tuple(str(Path(one).expanduser()) if is_folder(one) else one for one in places)


def checked_address(text: str) -> Address | None:
    """The EIP-55 form of ``text``; None where it is no address, its checksum is wrong, or it is 0.

    An address in one case carries no checksum and is taken as it is.
    """
    digits = text[2:]
    if text[:2] != "0x" or len(digits) != 40 or not set(digits) <= set(hexdigits):
        return None
    address = Address(to_checksum_address(text))
    right = text == address or digits in (digits.lower(), digits.upper())
    return address if right and address != ZERO_ADDRESS else None


def _address(text: str) -> Address:
    address = checked_address(text)
    if address is None:
        raise ConfigError(
            f"arena is the address of a contract, not {text!r}",
            hint="40 hexadecimal digits after 0x, with a correct checksum where in mixed case",
        )
    return address


def _variables(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings in ``POUW_X`` and ``POUW_X_FILE``; other variables are not ours."""
    found: dict[str, Any] = {}
    for name in (*NAMES, "config"):
        variable = _PREFIX + name.upper()
        direct, file = environment.get(variable), environment.get(variable + _SUFFIX)
        if direct and file:
            raise ConfigError(
                f"{variable} and {variable}{_SUFFIX} are both set", hint="keep one of the two"
            )
        if direct:
            found[name] = direct
        elif file:
            found[name] = _secret(Path(file), variable + _SUFFIX)
    return found


def _secret(path: Path, source: str) -> str:
    try:
        with path.expanduser().open("rb") as file:
            text = file.read(_MAX_FILE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"cannot read {path}, which {source} names: {reason}") from error
    return text.rstrip("\r\n")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the settings in {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    if "password" in values:
        raise ConfigError(
            f"{path} holds a password in the clear",
            hint="set password_file to the path of a file that only you can read",
        )
    secret = values.pop("password_file", None)
    for name in _PATHS & values.keys():
        if isinstance(values[name], str):
            values[name] = path.parent / Path(values[name]).expanduser()
    if "store" in values:
        values["store"] = [
            str(path.parent / place) if is_folder(place) else place
            for place in _places(values["store"])
        ]
    if isinstance(secret, str):
        values["password"] = _secret(path.parent / Path(secret).expanduser(), str(path))
    elif secret is not None:
        raise ConfigError(f"{path}: password_file is the path of a file")
    return values
