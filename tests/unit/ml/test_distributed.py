from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_task import tiny_request, tiny_spec, write_tiny_set

from pouw.documents import Provenance
from pouw.errors import ConfigError
from pouw.ml.distributed import Team
from pouw.ml.requests import Engine, Snapshot
from pouw.ml.training import Training
from pouw.roles.processes import TrainingProcess

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


def rank_processes(agent: int) -> dict[int, int]:
    """The ranks that torchrun has started, with their process ids."""
    found = {}
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        with contextlib.suppress(OSError):
            for word in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                if word.startswith(b"RANK="):
                    found[int(word[5:])] = int(child)
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="Linux tells ranks in /proc")
def test_training__rank_killed_under_torchrun_and_started_again__as_if_it_had_not_been(
    tmp_path: Path,
) -> None:
    steps, segment = 150, 25
    spec = tiny_spec(provenance=Provenance(policy="replay", segment_steps=segment))
    data = write_tiny_set(tmp_path / "data")
    whole = tiny_request(data, tmp_path / "whole", spec=spec, engine=TWO, max_steps=steps)
    request = whole.model_copy(update={"out": tmp_path / "killed"})
    lines = request.out / "snapshots.jsonl"

    first = TrainingProcess(tmp_path / "first.log", 1, processes=2)
    first.begin(request)
    wait_for(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 1)
    ranks = rank_processes(first.pid)
    os.kill(ranks[0], signal.SIGKILL)
    wait_for(lambda: not first.alive)  # torchrun ends the other rank, and itself
    first.end()
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())
    assert first.failure() is not None
    killed_at = Snapshot.parse(lines.read_bytes().splitlines()[-1]).step
    assert 0 < killed_at < steps

    again = TrainingProcess(tmp_path / "again.log", 1, processes=2)
    again.begin(request)
    wait_for(lambda: not again.alive)
    again.end()
    assert again.failure() is None
    Training(whole, lambda: False).run()

    # Weights, averages and moments, so the order of data; and every step's share of the budget.
    for step in range(segment, steps + 1, segment):
        ours, theirs = (
            load_file(tmp_path / name / f"checkpoint-{step:08d}.safetensors")
            for name in ("killed", "whole")
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_training__team_of_another_size__refused(tmp_path: Path) -> None:
    request = tiny_request(write_tiny_set(tmp_path / "data"), tmp_path / "out", engine=TWO)
    with pytest.raises(ConfigError, match="3 processes cannot train as 2 do"):
        Training(request, lambda: False, Team(rank=0, processes=3)).run()
