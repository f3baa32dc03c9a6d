from __future__ import annotations

import importlib.metadata
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pouw.errors import DataError
from pouw.ml.arguments import check_patch
from pouw.ml.brain import GAP_MM, brain_proposal, threshold_baseline_ppm, write_brain_set
from pouw.ml.data import CaseFile, Dataset, load_case, split_validation


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def dims(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def dataset(dims: int, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_brain_set(tmp_path_factory.mktemp("brain") / "set", dims, seed=7)


def slices_of(case: CaseFile) -> set[int]:
    assert case.label is not None
    image = nibabel.load(case.label)
    start = int(image.affine[2, 3])
    return set(range(start, start + image.shape[2]))


def test_write_brain_set__splits_along_z__with_gaps_and_no_shared_slice(dataset: Dataset) -> None:
    train, validation = split_validation(dataset.train)
    assert train
    assert validation
    assert dataset.test
    slabs = sorted(sorted(slices_of(case)) for case in (*train, *validation, *dataset.test))
    for below, above in itertools.pairwise(slabs):
        assert above[0] - below[-1] - 1 == GAP_MM


def test_write_brain_set__holds_enough_of_every_tissue(dims: int, dataset: Dataset) -> None:
    assert dataset.labels == ("background", "grey matter", "white matter")
    for file in (*dataset.train, *dataset.test):
        case = load_case(file, 3)
        assert case.label is not None
        assert case.image.shape == (1, 152, 192, 6 if dims == 2 else 16)
        assert case.spacing_um == (1000, 1000, 1000)
        assert all((case.label == value).mean() > 0.01 for value in (0, 1, 2))


def test_write_brain_set__labels_every_voxel_of_tissue_inside_the_crop(dataset: Dataset) -> None:
    for file in (*dataset.train, *dataset.test):
        label = load_case(file, 3).label
        assert label is not None
        assert not label[[0, -1]].any()
        assert not label[:, [0, -1]].any()


def test_write_brain_set__from_the_same_seed__is_the_same_and_else_degraded_otherwise(
    dims: int, dataset: Dataset, tmp_path: Path
) -> None:
    again = write_brain_set(tmp_path / "again", dims, seed=7)
    other = write_brain_set(tmp_path / "other", dims, seed=8)
    first, same, different = (d.test[0] for d in (dataset, again, other))
    assert first.images[0].read_bytes() == same.images[0].read_bytes()
    assert first.images[0].read_bytes() != different.images[0].read_bytes()
    assert first.label is not None
    assert different.label is not None
    assert first.label.read_bytes() == different.label.read_bytes()


def test_write_brain_set__over_another_set_or_in_4d__is_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="already holds"):
        write_brain_set(dataset.root, 2, seed=7)
    with pytest.raises(DataError, match="not 4D"):
        write_brain_set(dataset.root, 4, seed=7)


def test_write_brain_set__without_nilearn__says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(DataError) as caught:
        write_brain_set(tmp_path, 2, seed=7)
    assert "pip install" in str(caught.value.hint)


def test_threshold_baseline__on_degraded_cases__is_well_below_a_network(dataset: Dataset) -> None:
    assert 600_000 < threshold_baseline_ppm(dataset) < 780_000


def test_threshold_baseline__on_undegraded_cases__nearly_solves_them(
    dims: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for strength in ("_BIAS", "_GAMMA", "_NOISE"):
        monkeypatch.setattr(f"pouw.ml.brain.{strength}", 0.0)
    assert threshold_baseline_ppm(write_brain_set(tmp_path / "clean", dims, seed=7)) > 930_000


def test_threshold_baseline__of_two_labels__is_refused(dataset: Dataset) -> None:
    two = Dataset(dataset.root, dataset.channels, dataset.labels[:2], dataset.train, dataset.test)
    with pytest.raises(DataError, match="three labels"):
        threshold_baseline_ppm(two)


def test_brain_proposal__fits_the_set(dims: int, dataset: Dataset) -> None:
    proposal = brain_proposal(dims)
    patch = proposal.inference.patch
    assert check_patch(proposal.network, 3, patch).spatial_dims == dims
    shape = load_case(dataset.test[0], 3).image.shape[1:]
    assert np.all(np.array(patch) <= shape[:dims])
    with pytest.raises(DataError, match="not 1D"):
        brain_proposal(1)
