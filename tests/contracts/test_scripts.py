"""The ape scripts: deploy an arena, publish a task, from files and flags."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path
from types import ModuleType

import ape
import click
import pytest
from scene import KEY_HASH, REWARD, SPEC, Cast, Scene, parameters_of

from pouw.types import ZERO_ADDRESS, Address

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """scripts/deploy.py and what it shares with scripts/publish_task.py."""
    monkeypatch.syspath_prepend(str(ROOT))
    from scripts import _task, deploy

    return deploy, _task


def test_deploy_one__flags__is_an_arena_with_its_task_selected() -> None:
    oracle, word = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "0x" + "11" * 32
    command = f"run deploy one --network ethereum:local:test --account TEST::0 --oracle {oracle} "
    command += f"--spec {word} --key-hash {word} --reward {10**16} --min-score 900000 --first"
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ape"), *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["task"], len(told["arena"])) == (1, 42)


def test_parameters__file_then_flags__override_defaults(
    scripts: tuple[ModuleType, ModuleType], cast: Cast, tmp_path: Path
) -> None:
    deploy, _ = scripts
    oracles = [oracle.address for oracle in cast.oracles]
    file = tmp_path / "arena.json"
    file.write_text(json.dumps({"oracles": oracles, "phase1": 60, "miner_bond": 7}))
    made = deploy.parameters_of(file, {"phase1": 90, "oracles": (), "arbiter": None})
    assert (made.phase1, made.miner_bond, made.threshold) == (90, 7, 2)
    assert (made.arbiter, made.challenge_window, made.ruling_window) == (ZERO_ADDRESS, 0, 0)
    ruled = deploy.parameters_of(file, {"arbiter": cast.arbiter.address})
    assert (ruled.challenge_window, ruled.ruling_window) == (43_200, 43_200)
    contract = deploy.deploy(made, cast.stranger)
    assert contract.parameters().phase1 == 90


def test_parameters__unknown_or_no_committee__is_refused(
    scripts: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    deploy, _ = scripts
    with pytest.raises(click.UsageError, match="committee"):
        deploy.parameters_of(None, {})
    file = tmp_path / "arena.json"
    file.write_text(json.dumps({"phase2": 60, "oracles": [ZERO_ADDRESS]}))
    with pytest.raises(click.UsageError, match="phase2"):
        deploy.parameters_of(file, {})


def test_publish__token_arena__approves_and_publishes(
    scripts: tuple[ModuleType, ModuleType], cast: Cast
) -> None:
    _, shared = scripts
    token = ape.project.PlainToken.deploy(sender=cast.stranger)
    token.mint(cast.publisher, 10 * REWARD, sender=cast.stranger)
    parameters = replace(parameters_of(cast), asset=Address(token.address))
    scene = Scene.deploy(cast, parameters)
    assert tuple(scene.contract.parameters())[:2] == astuple(parameters)[:2]
    task = shared.Publication(SPEC, KEY_HASH, 0, first=False, reward=REWARD)
    assert [shared.publish(scene.contract, task, cast.publisher) for _ in range(3)] == [1, 2, 3]
    assert scene.pool() == [2, 3]
    assert token.balanceOf(scene.contract) == 3 * (REWARD + REWARD // 10)


def test_deploy_token__of_an_arena__halves_and_is_capped(
    scripts: tuple[ModuleType, ModuleType],
    arena: Scene,
    cast: Cast,
    capsys: pytest.CaptureFixture[str],
) -> None:
    deploy, _ = scripts
    kept = deploy.container("PouwToken").contract_type
    compiled = ape.project.PouwToken.contract_type
    assert kept.deployment_bytecode.bytecode == compiled.deployment_bytecode.bytecode
    deploy.token.callback(cast.stranger, arena.contract.address, 7 * 10**18, 100)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    token = ape.project.PouwToken.at(told["token"])
    assert token.ARENA() == arena.contract.address
    assert int(told["cap"]) == token.cap() == 2 * 7 * 10**18 * 100


def test_deploy_token__of_something_else__is_refused(
    scripts: tuple[ModuleType, ModuleType], cast: Cast
) -> None:
    deploy, _ = scripts
    other = ape.project.PlainToken.deploy(sender=cast.stranger)
    with pytest.raises(click.UsageError, match="is no arena"):
        deploy.token.callback(cast.stranger, other.address, 1, 1)
