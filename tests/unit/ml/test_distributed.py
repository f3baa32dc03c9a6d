from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_task import tiny_request, write_tiny_set

from pouw.errors import ConfigError
from pouw.ml.distributed import Team
from pouw.ml.requests import Engine, Snapshot
from pouw.ml.training import Training

TWO = Engine(device="cpu", processes=2)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def test_training__two_processes_over_gloo__as_one_with_both_batches_bit_by_bit(
    tmp_path: Path,
) -> None:
    data = write_tiny_set(tmp_path / "data")
    first = tiny_request(data, tmp_path / "team", engine=TWO, max_steps=8)
    alone = first.model_copy(update={"out": tmp_path / "alone"})
    solo = tiny_request(data, tmp_path / "solo", max_steps=8)
    path = tmp_path / "request.json"
    path.write_text(first.line(), encoding="utf-8")
    subprocess.run(
        [*TORCHRUN, "--module", "pouw.ml.training", str(path)],
        check=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for request in (alone, solo):
        Training(request, lambda: False).run()
    team, both, one = (
        load_file(tmp_path / name / "checkpoint-00000008.safetensors")
        for name in ("team", "alone", "solo")
    )
    assert team.keys() == both.keys()
    assert all(torch.equal(tensor, both[name]) for name, tensor in team.items())
    assert not all(torch.equal(tensor, one[name]) for name, tensor in team.items())
    lines = (tmp_path / "team" / "snapshots.jsonl").read_bytes().splitlines()
    assert [Snapshot.parse(line).step for line in lines] == [8]


def test_training__team_of_another_size__refused(tmp_path: Path) -> None:
    request = tiny_request(write_tiny_set(tmp_path / "data"), tmp_path / "out", engine=TWO)
    with pytest.raises(ConfigError, match="3 processes cannot train as 2 do"):
        Training(request, lambda: False, Team(rank=0, processes=3)).run()
