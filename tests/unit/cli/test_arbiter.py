"""`pouw challenge` and `pouw rule`, against a real chain."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from eth_account import Account

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient
from pouw.cli.main import main
from pouw.hashing import data_key_of, key_hash_of
from pouw.types import RoundNumber, Verdict

TEST_KEY = b"\x09" * 32
ROUND = RoundNumber(1)


@pytest.fixture
def challengeable(folder: Path, rpc: str, capsys: pytest.CaptureFixture[str]) -> ArenaClient:
    """Round 1 in its challenge window, nothing revealed, nothing reported."""
    arbiter = dev_account(8)
    (folder / "arbiter.json").write_text(
        json.dumps(Account.encrypt(arbiter.key, "correct horse", iterations=1024))
    )
    deployment = ["--oracle", dev_account(5).address, "--arbiter", arbiter.address, "--phase1"]
    deployment += ["60", "--challenge-window", "600", "--ruling-window", "600"]
    assert main(["deploy", *deployment, "--json"]) == 0
    deployed = json.loads(capsys.readouterr().out)
    with (folder / "pouw.toml").open("a") as file:
        file.write(f'arena = "{deployed["arena"]}"\n')
    client = ArenaClient.connect(rpc, deployed["arena"], dev_account(0))
    parameters = client.parameters()

    def wait(seconds: int) -> None:
        client.endpoint.request("evm_increaseTime", seconds)
        client.endpoint.request("evm_mine")

    client.publish(b"\x01" * 32, key_hash_of(TEST_KEY), 0, 10**18)
    wait(parameters.phase2)
    client.release_data_key(data_key_of(TEST_KEY))
    wait(parameters.phase1)
    client.open_test(TEST_KEY)
    wait(parameters.key_window + parameters.reveal_window + parameters.report_window)
    return client


def test_challenge_then_rule__missing_report__is_the_outcome(
    challengeable: ArenaClient, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["challenge", "1"]) == 0
    assert "0.1 ether" in capsys.readouterr().out
    (folder / "evidence.json").write_bytes(b"{}")
    words = ["rule", "1", "invalid", "--evidence", "evidence.json"]
    assert main(words) == 1
    assert "NotArbiter" in capsys.readouterr().err
    assert main([*words, "--keystore", "arbiter.json"]) == 0
    ruled = challengeable.round(ROUND)
    assert (ruled.verdict, ruled.ruled, ruled.changed) == (Verdict.INVALID, True, True)
    assert ruled.evidence_digest == hashlib.sha256(b"{}").digest()


def test_rule__winner_without_a_name_or_a_name_without_winner__is_a_usage_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rule", "1", "winner"]) == 2
    assert main(["rule", "1", "invalid", "--winner", dev_account(1).address]) == 2
    assert "--winner" in capsys.readouterr().err


def test_challenge__arena_without_an_arbiter__says_so(
    arena: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["challenge", "1"]) == 1
    assert "NotChallengeable" in capsys.readouterr().err
