"""In how many processes a miner measures its own model."""

from pathlib import Path

import pytest

from pouw.roles.miner import MinerOptions, measuring_processes


@pytest.mark.parametrize(
    ("device", "gpu", "expected"),
    [("cpu", False, 6), ("cpu", True, 6), ("auto", False, 6), ("auto", True, 1), ("cuda", True, 1)],
)
def test_measuring_processes__processors_or_a_gpu__as_many_as_train_or_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpu: bool, expected: int
) -> None:
    node = tmp_path / "nvidiactl"
    if gpu:
        node.touch()
    monkeypatch.setattr("pouw.roles.miner.GPU", node)
    options = MinerOptions(device=device, threads=3, processes=2)  # type: ignore[arg-type]
    assert measuring_processes(options) == expected
