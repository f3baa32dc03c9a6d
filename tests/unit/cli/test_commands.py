"""Commands against a real chain: the embedded one."""

import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from pouw.chain.accounts import dev_account
from pouw.chain.reading import ArenaReader
from pouw.chain.rpc import Endpoint
from pouw.cli.main import main
from pouw.cli.publisher import read_recipe
from pouw.documents import Caps
from pouw.errors import ConfigError
from pouw.ml.recipe import Proposal, recipe, small_unet

ORACLE = dev_account(5).address


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The document that a command prints."""
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_deploy__windows_and_committee__are_those_asked_for(arena: str, rpc: str) -> None:
    parameters = ArenaReader.open(rpc, arena).parameters()

    assert parameters.phase1 == 60
    assert parameters.oracles == (ORACLE,)
    assert parameters.threshold == 1
    assert parameters.min_reward == 10**16


def test_deploy__as_text__is_what_goes_into_the_settings_file(
    folder: Path, rpc: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "--oracle", ORACLE, "--phase1", "60"]) == 0

    settings = tomllib.loads(capsys.readouterr().out)
    assert set(settings) == {"arena", "from_block"}
    assert ArenaReader.open(rpc, settings["arena"]).deployment_block() == settings["from_block"]


def test_deploy__senseless_parameters__are_refused_by_the_contract(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "--oracle", ORACLE, "--threshold", "2"]) == 1
    assert "InvalidParameter" in capsys.readouterr().err


@pytest.mark.parametrize("window", ["phase1", "key-window", "reveal-window", "report-window"])
def test_deploy__window_that_the_contract_refuses__is_wrong_usage(
    window: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "--oracle", ORACLE, f"--{window}", "0"]) == 2
    assert "x>=1" in capsys.readouterr().err


def test_status__of_an_idle_arena__says_what_to_do(
    arena: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(capsys, "status")

    assert document["arena"] == arena
    assert document["phase"] == "idle"
    assert document["pool"] == []
    assert document["account"]["address"] == dev_account(0).address
    assert "pouw publisher publish" in document["next"]


def test_status__as_text__shows_the_same(arena: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0

    shown = capsys.readouterr().out
    assert arena in shown
    assert "idle" in shown
    assert "next: publish a task" in shown


def test_status__arena_on_another_chain__is_explained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--arena", ORACLE]) == 1
    assert "no contract" in capsys.readouterr().err


def test_sync__in_an_idle_arena__is_a_transaction(
    arena: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "sync")["transaction"].startswith("0x")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("finalize",), "NotLive"),
        (("reclaim", "1"), "NotClosed"),
        (("withdraw",), "has no credit"),
    ],
)
def test_call__that_makes_no_sense_now__names_the_reason(
    arena: str, words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == 1

    shown = capsys.readouterr().err
    assert expected in shown
    assert "Traceback" not in shown


def test_publish__without_the_word_that_data_becomes_public__is_refused(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "scans").mkdir()

    assert main(["publisher", "publish", "scans", "--reward", "1ether", "--minimum", "0.8"]) == 1

    shown = capsys.readouterr().err
    assert "public for ever" in shown.splitlines()[0]
    assert "--data-will-be-public" in shown


def test_oracle_run_once__in_an_idle_arena__waits(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keystore = Account.encrypt(dev_account(5).key, "correct horse", iterations=1024)
    (folder / "oracle.json").write_text(json.dumps(keystore))

    document = run(capsys, "oracle", "run", "--once", "--keystore", "oracle.json")

    assert document["role"] == "oracle"
    assert document["doing"] == "wait"
    assert run(capsys, "oracle", "status")["doing"] == "wait"


def test_oracle_run__account_outside_the_committee__is_refused_and_names_its_members(
    arena: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["oracle", "run", "--once"]) == 1

    shown = capsys.readouterr().err
    assert f"{dev_account(0).address} is not of this arena's committee" in shown
    assert ORACLE in shown.split("hint")[1]


def test_miner_run__account_that_cannot_leave_the_bond__is_warned_at_the_start(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = Account.encrypt(Account.create().key, "correct horse", iterations=1024)
    (folder / "poor.json").write_text(json.dumps(stranger))

    assert main(["miner", "run", "--once", "--keystore", "poor.json"]) == 0
    assert "needs 0.01 ether plus gas" in capsys.readouterr().err
    assert main(["miner", "run", "--once", "--home", "rich"]) == 0
    assert "plus gas" not in capsys.readouterr().err


def test_audit__of_an_arena_without_rounds__agrees_and_writes_its_report(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pouw-store").mkdir()
    document = run(capsys, "node", "audit", "--out", "audit.json")

    assert document["rounds"] == []
    assert document["exit_code"] == 0
    assert json.loads((folder / "audit.json").read_text()) == document


@pytest.mark.parametrize("command", [("audit",), ("prune", "--keep", "best")])
def test_node__store_that_is_not_there__is_refused_and_not_made(
    arena: str, folder: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["node", *command, "--store", "typo"]) == 1

    shown = capsys.readouterr().err
    assert "there is no store at typo" in shown
    assert "--store names" in shown
    assert not (folder / "typo").exists()


def test_compare__two_kept_chains__names_the_one_to_follow_and_why(
    arena: str, rpc: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = run(capsys, "node", "headers")
    assert (kept["arena"], kept["headers"]) == (arena, [])
    (folder / "before.json").write_text(json.dumps(kept))
    (folder / "other.json").write_text(json.dumps({**kept, "chain_id": 1}))

    document = run(capsys, "node", "compare", "before.json", rpc)

    assert document["chosen"] == "before.json"
    assert document["reason"] == "the chains are the same"
    assert main(["node", "compare", "before.json", "other.json"]) == 1
    assert "different arenas" in capsys.readouterr().err
    assert main(["node", "compare", "before.json"]) == 2
    assert main(["node", "compare", "before.json", "missing.json"]) == 1
    assert "cannot read missing.json" in capsys.readouterr().err


def test_confirmations__of_a_round_that_is_not_closed__is_refused(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["node", "confirmations", "1"]) == 1
    assert "round 1 is not closed" in capsys.readouterr().err


def test_role_status__where_none_ran__says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["miner", "status"]) == 1
    assert "no role has run" in capsys.readouterr().err


def test_role_status__of_a_process_that_is_killed__says_whether_it_lives_and_what_it_saw(
    arena: str, folder: Path, rpc: str, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = Endpoint.connect(rpc)
    command = [sys.executable, "-m", "pouw.cli.main", "publisher", "run", "--poll", "0.2"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        until = time.monotonic() + 60
        while not (folder / "home" / "status.json").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        said = run(capsys, "publisher", "status")
        child.kill()

    assert said["alive"]
    assert said["block"] == endpoint.block_number()
    assert 0 <= said["look_age_seconds"] < 30
    assert said["look_age_seconds"] <= said["block_age_seconds"] < 60
    said = run(capsys, "publisher", "status")
    assert not said["alive"]
    assert main(["publisher", "status"]) == 0
    assert "does not run now" in capsys.readouterr().out
    endpoint.close()


def test_devnet__ended_by_its_parent__goes_on_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pouw.cli.main", "devnet", "--data", str(tmp_path / "chain")]
    command += ["--port", "0", "--json", "--while-stdin-open"]
    for _ in range(2):
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            document = json.loads(child.stdout.readline())
            assert document["chain_id"] == 31337
            child.communicate(timeout=60)
        assert child.returncode == 0


def test_recipe__written_and_read__is_the_same(tmp_path: Path) -> None:
    proposal = Proposal(
        small_unet(2, (8, 16)),
        recipe((64, 64), overlap_ppm=250_000, spacing_um=()),
        Caps(model_bytes=1 << 20, parameters=100_000, activation_bytes=1 << 28),
    )
    parts = {
        "network": proposal.network.model_dump(mode="json"),
        "inference": proposal.inference.model_dump(mode="json"),
        "caps": proposal.caps.model_dump(mode="json"),
    }
    (tmp_path / "recipe.json").write_text(json.dumps(parts))

    assert read_recipe(tmp_path / "recipe.json") == proposal


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"network": 1, "inference": 2, "caps": 3}'])
def test_recipe__that_is_none__says_what_is_wrong(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.json"):
        read_recipe(tmp_path / "recipe.json")


def test_sync__twice__reads_on_and_says_how_far(
    arena: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(capsys, "node", "sync", "--home", "node")
    assert document["new_events"] == 0
    assert Path(document["index"]).is_file()
    run(capsys, "sync")
    again = run(capsys, "node", "sync", "--home", "node")
    assert (again["new_events"], again["taken_back"]) == (0, 0)
    assert again["block"] is not None
