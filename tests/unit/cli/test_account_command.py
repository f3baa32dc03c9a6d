"""`pouw account`: keystores from nothing, from a private key, from the accounts of a devnet."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pouw.chain.accounts import dev_account, load_keystore
from pouw.chain.devnet import Devnet
from pouw.cli.main import main

KEY = "0x" + "5a" * 32


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POUW_PASSWORD", "correct horse")
    return tmp_path


def key_in(keystore: str) -> str:
    return "0x" + bytes(load_keystore(Path(keystore), "correct horse").key).hex()


@pytest.mark.parametrize("text", [KEY, KEY[2:].upper(), f"  {KEY}\n"])
def test_import__private_key_in_a_file__is_that_account(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "key").write_text(text)
    assert main(["account", "import", "me.json", "--key", "key", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["address"] == load_keystore(Path("me.json"), "correct horse").address
    assert key_in("me.json") == KEY
    assert Path("me.json").stat().st_mode & 0o777 == 0o600


def test_import__private_key_from_standard_input__is_that_account(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pouw.cli.main", "account", "import", "me.json"],
        input=KEY,
        text=True,
        capture_output=True,
        check=True,
    )
    assert key_in("me.json") == KEY
    assert KEY[2:] not in ended.stdout + ended.stderr


def test_import__account_of_a_devnet__can_pay_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["account", "import", "me.json", "--devnet", "3"]) == 0
    assert dev_account(3).address in capsys.readouterr().out
    with Devnet(folder / "chain", port=0, block_seconds=0) as devnet:
        words = ["deploy", "--rpc", devnet.url, "--keystore", "me.json"]
        assert main([*words, "--oracle", dev_account(5).address]) == 0


@pytest.mark.parametrize("text", ["", "hello", KEY + "00", "0x" + "00" * 32, "ff" * 32, "5" * 5000])
def test_import__no_private_key__is_refused_and_not_shown(
    folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert main(["account", "import", "me.json", "--json"]) == 1
    shown = capsys.readouterr()
    assert "is no private key" in json.loads(shown.out)["error"]
    assert not text or text.removeprefix("0x") not in shown.out + shown.err
    assert not (folder / "me.json").exists()


def test_import__keystore_is_there__is_never_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["account", "new", "me.json"]) == 0
    before = (folder / "me.json").read_bytes()
    assert main(["account", "import", "me.json", "--devnet", "0"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (folder / "me.json").read_bytes() == before


def test_import__key_and_devnet__is_wrong_usage(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "key").write_text(KEY)
    assert main(["account", "import", "me.json", "--key", "key", "--devnet", "0"]) == 2
    assert "--devnet" in capsys.readouterr().err


def test_import__no_password__says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("POUW_PASSWORD")
    assert main(["account", "import", "me.json", "--devnet", "0"]) == 1
    assert "POUW_PASSWORD_FILE" in capsys.readouterr().err
