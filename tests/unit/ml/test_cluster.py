"""Scoring on a real Ray cluster of two nodes, one of which is lost on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_task import tiny_spec, write_tiny_set

from pouw.ml.checkpoint import save_model
from pouw.ml.networks import build
from pouw.ml.requests import ScoringAnswer, ScoringRequest
from pouw.ml.scoring import Scorer

pytest.importorskip("ray")

CASES = 4
# In a process of its own: Ray changes signal handlers and environment of whoever starts it.
STORY = """
import json, os, signal, sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from pouw.ml.requests import ScoringRequest
from pouw.roles.cluster import cluster_scoring

request = ScoringRequest.parse(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
pool = cluster_scoring(cluster.address, "cpu")


def answered():
    while (answer := pool.answer(60.0)) is None:
        pass
    return answer.line()


seats = len(pool.seats)
pool.ask(request)
answers = [answered()]
pool.ask(request.model_copy(update={"claim_ppm": 990_000}))
answers.append(answered())
scoring = [ray.get(seat.actor.ready.remote()) for seat in pool.seats]
for process in scoring:
    os.kill(process, signal.SIGSTOP)
pool.ask(request.model_copy(update={"id": "again"}))
assert all(seat.busy for seat in pool.seats)
# Whichever node this process did not connect through.
here = ray.get_runtime_context().get_node_id()
cluster.remove_node(next(one for one in nodes if one.node_id != here), allow_graceful=False)
for process in scoring:
    os.kill(process, signal.SIGCONT)
answers.append(answered())
lost = sum(seat.busy for seat in pool.seats)
Path(sys.argv[2]).write_text(json.dumps({"seats": seats, "lost": lost, "answers": answers}))
pool.end()
ray.shutdown()
cluster.shutdown()
"""


def test_cluster__two_nodes_one_lost_in_the_middle__answers_as_one_process(
    tmp_path: Path,
) -> None:
    spec = tiny_spec()
    torch.manual_seed(1)
    save_model(tmp_path / "m.safetensors", build(spec.network, 1, 3, parameters_cap=100_000))
    data = write_tiny_set(tmp_path / "data", train=1, test=CASES)
    request = ScoringRequest(id="m", spec=spec, data=data, model=tmp_path / "m.safetensors")
    alone = Scorer().answer(request)
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", STORY, request.line(), str(tmp_path / "told")],
        capture_output=True,
        text=True,
        env={**os.environ, **quiet},
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    told = json.loads((tmp_path / "told").read_text())
    whole, refused, after_loss = (ScoringAnswer.parse(line) for line in told["answers"])
    assert (told["seats"], told["lost"]) == (2, 1)
    assert (whole.score_ppm, whole.cases) == (alone.score_ppm, alone.cases)
    assert (refused.reason, refused.score_ppm) == ("bound", None)
    assert (after_loss.score_ppm, after_loss.cases) == (alone.score_ppm, alone.cases)
