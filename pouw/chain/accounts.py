"""Accounts: encrypted keystores (version 3), and the public development accounts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from eth_account import Account
from eth_account.hdaccount import HDPath, seed_from_mnemonic
from eth_account.signers.local import LocalAccount

from pouw.errors import ConfigError

DEV_MNEMONIC: Final = "test test test test test test test test test test test junk"
DEV_ACCOUNTS: Final = 10
DEV_CHAIN_ID: Final = 31337
_MAX_KEYSTORE_BYTES: Final = 1 << 16
_MAX_SCRYPT_N: Final = 1 << 20


def dev_account(index: int) -> LocalAccount:
    """Account ``index`` (0 to 9) that devnet and anvil fund; anybody has its key."""
    if not 0 <= index < DEV_ACCOUNTS:
        raise ConfigError(f"there is no development account {index}, only 0 to {DEV_ACCOUNTS - 1}")
    key = HDPath(f"m/44'/60'/0'/0/{index}").derive(seed_from_mnemonic(DEV_MNEMONIC, ""))
    account: LocalAccount = Account.from_key(key)
    return account


def account_of_key(text: str) -> LocalAccount:
    """The account whose private key ``text`` is, in hexadecimal digits, ``0x`` or not.

    ConfigError, which does not show it, where it is none.
    """
    try:
        key = bytes.fromhex(text.strip().removeprefix("0x"))
        account: LocalAccount = Account.from_key(key)
    except ValueError:
        # Not chained: what the library says of it holds the key.
        raise ConfigError(
            "what was given is no private key", hint="64 hexadecimal digits, nothing else"
        ) from None
    return account


def create_keystore(path: Path, password: str, account: LocalAccount | None = None) -> LocalAccount:
    """Write ``account`` (default: a fresh one) to ``path``, scrypt-encrypted, file mode 0600.

    ConfigError where the file exists: a keystore is never overwritten.
    """
    if not password:
        raise ConfigError("the password of a keystore must not be empty")
    chosen: LocalAccount = account or Account.create()
    text = json.dumps(Account.encrypt(chosen.key, password, kdf="scrypt"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise ConfigError(
            f"the keystore {path} exists already", hint="name another file, or use this one"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot write the keystore {path}: {error.strerror}") from error
    return chosen


def load_keystore(path: Path, password: str) -> LocalAccount:
    """The account in the version-3 keystore at ``path``; ConfigError where it does not open."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEYSTORE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the keystore {path}: {error.strerror}") from error
    try:
        keystore = json.loads(data)
        _check_cost(path, keystore)
        key = Account.decrypt(keystore, password)
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        wrong_password = isinstance(error, ValueError) and "MAC" in str(error)
        raise ConfigError(
            f"the password does not open {path}"
            if wrong_password
            else f"{path} is not a keystore of version 3",
            hint="check the account's password" if wrong_password else None,
        ) from error
    account: LocalAccount = Account.from_key(key)
    return account


def _check_cost(path: Path, keystore: object) -> None:
    """Refuse a file whose scrypt parameters would take the machine's memory."""
    if not isinstance(keystore, dict):
        raise TypeError("not an object")
    crypto = keystore.get("crypto", keystore.get("Crypto"))
    if not isinstance(crypto, dict) or not isinstance(crypto.get("kdfparams"), dict):
        raise TypeError("no crypto section")
    cost = crypto["kdfparams"].get("n", 0)
    if not isinstance(cost, int) or cost > _MAX_SCRYPT_N:
        raise ConfigError(f"{path}: scrypt cost {cost} is above {_MAX_SCRYPT_N}")
