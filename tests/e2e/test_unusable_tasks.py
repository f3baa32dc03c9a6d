"""A task that nobody can be judged on is invalid, whoever claims what, and an audit agrees."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from revealing import PARAMETERS, TEST_KEY, Stage, revealed
from tiny_task import write_tiny_set
from watched import Watched

from pouw.archive import pack
from pouw.chain.rpc import Endpoint
from pouw.documents import Archive, TaskSpec
from pouw.ml.bound import in_hash_order
from pouw.roles.base import Observer
from pouw.roles.node import audit
from pouw.roles.oracle import OracleOptions
from pouw.sealing import Sealing
from pouw.storage.local import LocalStore


def sealed(folder: Path, store: LocalStore) -> Archive:
    plain = folder.with_suffix(".tar")
    pack(folder, plain)
    with Sealing(plain, TEST_KEY) as sealing:
        stored = store.put_leaves(sealing)
    return Archive(cid=stored.cid, bytes=stored.bytes, cases=len(list(folder.glob("labelsTs/*"))))


def two_cases(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return write_tiny_set(folder, train=0, test=2)


def rubbish_last(spec: TaskSpec, folder: Path, store: LocalStore) -> TaskSpec:
    """An image that cannot be read, in the case that comes last: names choose the order."""
    for attempt in range(50):
        root = two_cases(folder)
        for part, suffix in (("imagesTs", "_0000"), ("labelsTs", "")):
            whole = root / part / f"test1{suffix}.nii.gz"
            whole.rename(root / part / f"bad{attempt}{suffix}.nii.gz")
        (root / "imagesTs" / f"bad{attempt}_0000.nii.gz").write_bytes(b"rubbish")
        changed = spec.model_copy(update={"test": sealed(root, store)})
        if in_hash_order(["test0", f"bad{attempt}"], changed.digest())[1].startswith("bad"):
            return changed
    raise AssertionError


def channels_unnamed(spec: TaskSpec, folder: Path, store: LocalStore) -> TaskSpec:
    """Every image of two channels in one file, of which one is named: each case can be read."""
    root = two_cases(folder)
    for path in (root / "imagesTs").iterdir():
        image = np.asarray(nibabel.load(path).dataobj)
        nibabel.save(nibabel.Nifti1Image(np.stack([image, image], axis=-1), np.eye(4)), path)
    return spec.model_copy(update={"test": sealed(root, store)})


def larger_than_an_image(spec: TaskSpec, folder: Path, store: LocalStore) -> TaskSpec:
    """A few voxels of a metre, 2^30 of them once they are resampled."""
    root = two_cases(folder)
    for path in (*root.glob("imagesTs/*"), *root.glob("labelsTs/*")):
        voxels = np.asarray(nibabel.load(path).dataobj)[:8, :8, :8]
        made = nibabel.Nifti1Image(voxels, np.diag([1000.0, 1000.0, 1000.0, 1.0]))
        made.header.set_xyzt_units("mm")
        nibabel.save(made, path)
    recipe = spec.inference.model_copy(update={"spacing_um": (7_800, 7_800, 7_800)})
    return spec.model_copy(update={"test": sealed(root, store), "inference": recipe})


def one_site_a_group(spec: TaskSpec, _folder: Path, _store: LocalStore) -> TaskSpec:
    """A network that torch refuses to run: as many groups as channels, over one site."""
    arguments = {**spec.network.arguments, "channels": (4, 4)}
    network = spec.network.model_copy(update={"arguments": arguments})
    recipe = spec.inference.model_copy(update={"patch": (2, 2)})
    return spec.model_copy(update={"network": network, "inference": recipe})


def undescribed(spec: TaskSpec, folder: Path, store: LocalStore) -> TaskSpec:
    """No dataset.json: labels could only be found by decoding all of them."""
    root = two_cases(folder)
    (root / "dataset.json").unlink()
    return spec.model_copy(update={"test": sealed(root, store)})


@pytest.mark.parametrize(
    ("flaw", "processes", "reason"),
    [
        (rubbish_last, 1, "imagesTs/bad"),
        (rubbish_last, 2, "imagesTs/bad"),
        (channels_unnamed, 1, "2 channel"),
        (larger_than_an_image, 1, "more than"),
        (one_site_a_group, 1, "a single site"),
        (undescribed, 1, "dataset.json"),
    ],
)
def test_oracle__task_that_nobody_can_be_judged_on__votes_invalid_and_the_audit_agrees(
    endpoint: Endpoint,
    advance: Callable[[int], None],
    tmp_path: Path,
    flaw: Callable[[TaskSpec, Path, LocalStore], TaskSpec],
    processes: int,
    reason: str,
) -> None:
    store = LocalStore(tmp_path / "store")
    stage = Stage(endpoint, tmp_path, lambda spec: flaw(spec, tmp_path / "flawed", store))
    liar = stage.model("liar", lambda tensor: tensor * 1.5)
    revealed(stage, [stage.enter(2, liar, 1_000_000)], advance)
    watched = Watched(stage, tmp_path, OracleOptions(processes=processes))
    try:
        evidence = watched.run(lambda: False)
    finally:
        watched.close()
    assert evidence is not None
    assert evidence.verdict == "invalid"
    assert reason in evidence.invalid_reason
    assert not watched.said("measured")

    advance(PARAMETERS.report_window)
    stage.clients[0].finalize()
    (tmp_path / "node").mkdir()
    report = audit(Observer(stage.clients[3], stage.store, tmp_path / "node", 1, 0))
    assert (report.exit_code, report.rounds[0].problems) == (0, ())
