"""`pouw node audit` as it is called: models trained again, and scored on a Ray cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from played import COPIED, COPYCAT, HONEST, MINER, Stage

from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.cli.main import main

LIE_PPM = 990_000
# Audits before and after the cluster has a processor; it stands in a process of its own.
CLUSTER = """
import json, subprocess, sys
from ray.cluster_utils import Cluster

head = {"num_cpus": 0, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)


def audit():
    command = [*sys.argv[1:], "--ray", cluster.address]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


told = [audit()]
cluster.add_node(num_cpus=1)
told.append(audit())
cluster.shutdown()
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Past:
    """Two closed rounds that a node can audit with ``words``; both winners have one model."""

    words: tuple[str, ...]
    score_ppm: int


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    """An honest round, and one whose winner stole the model and claimed more than it does."""
    folder = tmp_path_factory.mktemp("audited")
    with Devnet(folder / "chain", port=0, block_seconds=0) as chain:
        endpoint = Endpoint.connect(chain.url)
        stage = Stage(endpoint, folder)
        honest = stage.trained()
        score = stage.score_of(honest)
        stage.play(HONEST, MINER, honest, score)
        stage.play(COPIED, COPYCAT, stage.copied(honest), LIE_PPM)
        endpoint.close()
        where = ("--rpc", chain.url, "--arena", stage.address, "--store", str(folder / "store"))
        depth = ("--home", str(folder / "node"), "--confirmations", "1", "--from-block", "0")
        yield Past(("node", "audit", "--json", *where, *depth), score)


def problems(report: dict[str, Any]) -> list[list[str]]:
    return [[problem["rule"] for problem in one["problems"]] for one in report["rounds"]]


def test_audit__provenance__names_the_copied_training_and_no_other(
    past: Past, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*past.words, "--rescore", "none", "--provenance"])

    report = json.loads(capsys.readouterr().out)
    assert (code, report["exit_code"]) == (2, 2)
    assert problems(report) == [[], ["provenance"]]
    assert [one["result"] for one in report["rounds"]] == ["true", "false"]
    (problem,) = report["rounds"][1]["problems"]
    assert "unlike" in problem["detail"]


def test_audit__while_models_are_scored__says_which(
    past: Past, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.cli.output.LINE_SECONDS", 0.01)
    main([*past.words])
    shown = capsys.readouterr().err
    for number in (1, 2):
        assert f"round {number}: score the model of 0x" in shown


def test_audit__ray__scores_where_the_cluster_has_room_and_names_the_false_claim(
    past: Past,
) -> None:
    pytest.importorskip("ray")
    pouw = str(Path(sys.executable).with_name("pouw"))
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", CLUSTER, pouw, *past.words],
        capture_output=True,
        text=True,
        env={**os.environ, **quiet},
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    (no_room, _, why), (code, out, _) = json.loads(ended.stdout.splitlines()[-1])

    assert no_room == 1
    assert "cluster" in why
    report = json.loads(out)
    assert code == 2
    assert [one["measured_ppm"] for one in report["rounds"]] == [past.score_ppm] * 2
    assert problems(report) == [[], ["score"]]
    assert str(LIE_PPM) in report["rounds"][1]["problems"][0]["detail"]
