"""`pouw publisher publish --first`, from images to the pool, killed half-way included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import nibabel
import numpy as np
import pytest

from pouw.chain.reading import ArenaReader
from pouw.cli.main import main
from pouw.errors import ChainUnavailable
from pouw.types import TaskId


@pytest.fixture
def scans(folder: Path) -> Path:
    """Four training and two test cases of a bright box, in nnU-Net layout."""
    random = np.random.Generator(np.random.Philox(5))
    root = folder / "scans"
    for part, count in (("Tr", 4), ("Ts", 2)):
        for case in range(count):
            label = np.zeros((24, 20, 8), dtype=np.uint8)
            label[4 : 12 + case, 5:13, 1:7] = 1
            image = np.rint(1000 * label + random.normal(0, 200, label.shape)).astype(np.int16)
            for kind, voxels in ((f"images{part}", image), (f"labels{part}", label)):
                (root / kind).mkdir(parents=True, exist_ok=True)
                name = f"{part}{case}{'_0000' if kind.startswith('images') else ''}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), root / kind / name)
    document = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "box": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(document))
    return root


def test_publish__first_and_killed_after_it_was_sent__run_again_is_the_same_task(
    arena: str,
    scans: Path,
    rpc: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unplugged(*_: object) -> NoReturn:
        raise ChainUnavailable("the cable was pulled")

    words = ["publisher", "publish", "scans", "--reward", "1ether", "--minimum", "0.8", "--first"]
    words += ["--dims", "2", "--data-will-be-public", "--json"]
    with monkeypatch.context() as cable:
        cable.setattr("pouw.chain.tx.Sender.wait", unplugged)
        assert main(words) == 1
    capsys.readouterr()
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["task"] == 1

    reader = ArenaReader.open(rpc, arena)
    task = reader.task(TaskId(1))
    assert (task.first, task.min_score, task.reward) == (True, 800_000, 10**18)
    assert reader.state().tasks == 1
