from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from eth_account import Account

from pouw.chain.accounts import create_keystore, dev_account, load_keystore
from pouw.errors import ConfigError


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "inner" / "miner.json"
    create_keystore(path, "a password", dev_account(3))
    return path


def test_dev_account__is_anvils() -> None:
    assert dev_account(0).address == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert dev_account(9).address == "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720"
    with pytest.raises(ConfigError):
        dev_account(10)


def test_keystore__right_password__opens(keystore: Path) -> None:
    assert load_keystore(keystore, "a password").key == dev_account(3).key
    assert stat.S_IMODE(keystore.stat().st_mode) == 0o600
    assert json.loads(keystore.read_text())["crypto"]["kdf"] == "scrypt"


def test_keystore__wrong_password__says_so(keystore: Path) -> None:
    with pytest.raises(ConfigError, match="the password does not open"):
        load_keystore(keystore, "another")


def test_create_keystore__existing_file__is_never_overwritten(keystore: Path) -> None:
    before = keystore.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        create_keystore(keystore, "a password")
    assert keystore.read_bytes() == before


def test_create_keystore__no_password__is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must not be empty"):
        create_keystore(tmp_path / "key.json", "")
    assert not (tmp_path / "key.json").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", "\xff", '{"version": 3, "crypto": 7}'])
def test_load_keystore__something_else__is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a keystore"):
        load_keystore(path, "a password")


def test_load_keystore__missing__is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json"):
        load_keystore(tmp_path / "none.json", "a password")


def test_load_keystore__scrypt_cost_beyond_reason__is_refused(tmp_path: Path) -> None:
    made = Account.encrypt(dev_account(0).key, "p", kdf="scrypt", iterations=2)
    made["crypto"]["kdfparams"]["n"] = 1 << 40
    path = tmp_path / "key.json"
    path.write_text(json.dumps(made))
    with pytest.raises(ConfigError, match="scrypt cost"):
        load_keystore(path, "p")
