"""A home is one account's in one arena of one chain: what lies there is numbered by that arena."""

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from pouw.chain.accounts import dev_account
from pouw.chain.arena import deploy
from pouw.chain.devnet import Devnet
from pouw.chain.reading import ArenaReader
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.cli.homes import JOURNAL_FILE
from pouw.cli.main import main
from pouw.journal import Journal

ORACLE = dev_account(5).address


def held(folder: Path) -> dict[str, Any] | None:
    """Whose the home is, as its journal has it."""
    with Journal(folder / "home" / JOURNAL_FILE) as journal:
        return journal.get("home", "identity")


def other_keystore(folder: Path, index: int) -> str:
    keystore = Account.encrypt(dev_account(index).key, "correct horse", iterations=1024)
    (folder / f"account-{index}.json").write_text(json.dumps(keystore))
    return f"account-{index}.json"


def another_arena(rpc: str, arena: str) -> str:
    endpoint = Endpoint.connect(rpc)
    parameters = ArenaReader.open(rpc, arena).parameters()
    address = deploy(Sender(endpoint, dev_account(0)), parameters).address
    endpoint.close()
    return address


def test_home__one_account_in_several_roles__goes_on(arena: str, folder: Path) -> None:
    for role in ("publisher", "miner", "publisher"):
        assert main([role, "run", "--once"]) == 0

    kept = held(folder)
    assert kept is not None
    assert (kept["arena"], kept["account"]) == (arena, dev_account(0).address)
    assert kept["chain_id"] == 31337


def test_home__of_another_arena__is_refused_and_left_as_it_was(
    arena: str, rpc: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publisher", "run", "--once"]) == 0
    before, status = held(folder), (folder / "home" / "status.json").read_bytes()
    other = another_arena(rpc, arena)

    for command in (["miner", "run", "--once"], ["publisher", "cancel", "1"]):
        assert main([*command, "--arena", other, "--from-block", "0"]) == 1
        shown = capsys.readouterr().err
        assert arena in shown
        assert other in shown
        assert f"--home {folder / 'home'}-2" in shown
    assert held(folder) == before
    assert (folder / "home" / "status.json").read_bytes() == status
    assert main(["publisher", "run", "--once"]) == 0


def test_home__of_another_account__is_refused(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["miner", "run", "--once"]) == 0

    assert main(["miner", "run", "--once", "--keystore", other_keystore(folder, 3)]) == 1

    shown = capsys.readouterr().err
    assert dev_account(0).address in shown
    assert dev_account(3).address in shown
    assert main(["miner", "run", "--once", "--keystore", "account-3.json", "--home", "b"]) == 0


def test_home__in_which_nothing_was_kept__is_anybodys(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["oracle", "run", "--once"]) == 1
    assert "not of this arena's committee" in capsys.readouterr().err

    assert main(["oracle", "run", "--once", "--keystore", other_keystore(folder, 5)]) == 0


def test_home__of_a_chain_that_began_anew__is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for number in (1, 2):
        with Devnet(tmp_path / f"chain-{number}", port=0, block_seconds=0) as devnet:
            command = ["deploy", "--oracle", ORACLE, "--rpc", devnet.url, "--json"]
            assert main(command) == 0
            arena = json.loads(capsys.readouterr().out)["arena"]
            command = ["miner", "run", "--once", "--rpc", devnet.url, "--arena", arena]
            said.append((arena, main(command), capsys.readouterr().err))

    assert said[0][0] == said[1][0]
    assert [code for _, code, _ in said] == [0, 1]
    assert "began with block" in said[1][2]


def test_home__of_an_earlier_release__is_bound_at_its_next_use(
    arena: str, rpc: str, folder: Path
) -> None:
    (folder / "home").mkdir()
    with Journal(folder / "home" / JOURNAL_FILE) as journal:
        journal.put("scores", "1", 900_000)

    assert main(["miner", "run", "--once"]) == 0

    other = another_arena(rpc, arena)
    assert main(["miner", "run", "--once", "--arena", other, "--from-block", "0"]) == 1


def test_home__of_who_only_reads__is_bound_to_nothing(
    arena: str, rpc: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = another_arena(rpc, arena)

    indices = set()
    for address in (arena, other):
        assert main(["status", "--arena", address]) == 0
        capsys.readouterr()
        assert main(["node", "sync", "--arena", address, "--from-block", "0", "--json"]) == 0
        indices.add(json.loads(capsys.readouterr().out)["index"])

    assert len(indices) == 2
    assert held(folder) is None


def test_home__that_others_could_read__is_made_private_and_said(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "home").mkdir()
    (folder / "home").chmod(0o755)

    assert main(["miner", "run", "--once"]) == 0

    assert stat.S_IMODE((folder / "home").stat().st_mode) == 0o700
    assert "could be read by other users" in capsys.readouterr().err
    assert main(["miner", "run", "--once"]) == 0
    assert "could be read" not in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_home__of_another_user__is_refused(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "home").mkdir()
    os.chown(folder / "home", 65534, 65534)

    assert main(["miner", "run", "--once"]) == 1

    shown = capsys.readouterr().err
    assert "belongs to another user" in shown
    assert "--home" in shown
    assert list((folder / "home").iterdir()) == []


def test_home__that_cannot_be_made_private__is_refused(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "home").mkdir()
    (folder / "home").chmod(0o755)
    if subprocess.run(["chattr", "+i", "home"], capture_output=True, check=False).returncode:
        pytest.skip("only root, and not on every file system, makes folders immutable")
    try:
        assert main(["miner", "run", "--once"]) == 1
    finally:
        subprocess.run(["chattr", "-i", "home"], check=True)

    shown = capsys.readouterr().err
    assert "private" in shown
    assert "--home" in shown
