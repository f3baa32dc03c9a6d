"""The first place of ``--store`` is where a role keeps what it makes: found out before it works."""

import json
import subprocess
from pathlib import Path

import pytest
from eth_account import Account

from pouw.chain.accounts import dev_account
from pouw.cli.main import main

GATEWAY = "http://127.0.0.1:9"


@pytest.fixture
def oracle(folder: Path) -> str:
    """The keystore of the arena's oracle."""
    keystore = Account.encrypt(dev_account(5).key, "correct horse", iterations=1024)
    (folder / "oracle.json").write_text(json.dumps(keystore))
    return "oracle.json"


def publishing(folder: Path) -> list[str]:
    (folder / "images").mkdir()
    words = "publisher publish images --reward 1ether --minimum 0.8 --data-will-be-public"
    return words.split()


def test_role__first_place_is_a_gateway__is_refused_at_the_start(
    arena: str, folder: Path, oracle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["miner", "run", "--once"],
        ["publisher", "run", "--once"],
        ["oracle", "run", "--once", "--keystore", oracle],
        publishing(folder),
    ):
        assert main([*command, "--store", GATEWAY]) == 1

        shown = capsys.readouterr().err
        assert f"{GATEWAY} is a gateway" in shown
        assert f"--store pouw-store,{GATEWAY}" in shown
    assert main(["miner", "run", "--once", "--store", f"pouw-store,{GATEWAY}"]) == 0


def test_role__first_place_cannot_be_written__is_refused_at_the_start(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "content" / "blocks").mkdir(parents=True)
    (folder / "content" / "pins").mkdir()
    if subprocess.run(
        ["chattr", "+i", "content/pins"], capture_output=True, check=False
    ).returncode:
        pytest.skip("only root, and not on every file system, makes folders immutable")
    try:
        assert main(["miner", "run", "--once", "--store", "content"]) == 1
    finally:
        subprocess.run(["chattr", "-i", "content/pins"], check=True)

    shown = capsys.readouterr().err
    assert "cannot be kept in content" in shown
    assert "hint" in shown


def test_role__first_place_is_no_folder__is_refused_at_the_start(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "content").write_text("no folder")

    assert main(["miner", "run", "--once", "--store", "content"]) == 1

    assert "content" in capsys.readouterr().err


def test_cancel__first_place_is_a_gateway__is_asked_of_the_contract(
    arena: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publisher", "cancel", "1", "--store", GATEWAY]) == 1

    assert "gateway" not in capsys.readouterr().err
