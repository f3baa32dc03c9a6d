"""Commands against a real chain, the embedded one, from a folder with an account and settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account

from pouw.chain.accounts import dev_account
from pouw.chain.devnet import Devnet
from pouw.cli.main import main

ORACLE = dev_account(5).address


@pytest.fixture(scope="module")
def rpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Devnet(tmp_path_factory.mktemp("chain"), port=0, block_seconds=0) as devnet:
        yield devnet.url


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rpc: str) -> Path:
    """A folder with an account of the chain, its password and settings."""
    monkeypatch.chdir(tmp_path)
    keystore = Account.encrypt(dev_account(0).key, "correct horse", iterations=1024)
    (tmp_path / "me.json").write_text(json.dumps(keystore))
    (tmp_path / "secret").write_text("correct horse\n")
    (tmp_path / "pouw.toml").write_text(
        f'rpc = "{rpc}"\nkeystore = "me.json"\npassword_file = "secret"\nhome = "home"\n'
    )
    return tmp_path


@pytest.fixture
def arena(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A fresh arena, named in the settings."""
    assert main(["deploy", "--oracle", ORACLE, "--phase1", "60", "--json"]) == 0
    deployed = json.loads(capsys.readouterr().out)
    with (folder / "pouw.toml").open("a") as file:
        file.write(f'arena = "{deployed["arena"]}"\nfrom_block = {deployed["from_block"]}\n')
    return str(deployed["arena"])
