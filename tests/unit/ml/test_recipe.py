from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pouw.errors import DataError
from pouw.ml.arguments import activation_bound, check_patch
from pouw.ml.data import CaseFile, Dataset, read_dataset
from pouw.ml.recipe import propose

DATA = Path(os.environ.get("POUW_DATA", "../shared/data")) / "hippocampus"


def dataset_of(
    root: Path, *cases: tuple[tuple[int, int, int], tuple[float, float, float]]
) -> Dataset:
    files = []
    for number, (shape, spacing) in enumerate(cases):
        path = root / f"{number}.nii"
        image = nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.diag([*spacing, 1.0]))
        nibabel.save(image, path)
        files.append(CaseFile(str(number), (path,), path))
    return Dataset(root, ("image",), ("background", "a", "b"), tuple(files), ())


@pytest.mark.parametrize(("dims", "patch"), [(2, (40, 56)), (3, (40, 56, 24))])
def test_propose__for_small_images__covers_the_median_one(
    tmp_path: Path, dims: int, patch: tuple[int, ...]
) -> None:
    sizes = [(36, 50, 20), (37, 51, 19), (99, 80, 60)]
    proposal = propose(dataset_of(tmp_path, *((size, (1.0, 1.0, 1.0)) for size in sizes)), dims)
    assert proposal.inference.patch == patch
    assert proposal.inference.spacing_um == ()
    assert proposal.network.arguments["spatial_dims"] == dims


def test_propose__for_large_images__stays_within_what_is_cheap(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, ((600, 300, 200), (1.0, 1.0, 1.0)))
    assert propose(dataset, 2).inference.patch == (256, 256)
    assert propose(dataset, 3).inference.patch == (96, 96, 96)


def test_propose__for_differing_spacings__resamples_to_the_median(tmp_path: Path) -> None:
    dataset = dataset_of(
        tmp_path,
        ((32, 32, 8), (1.0, 1.0, 4.0)),
        ((32, 32, 16), (1.0, 1.0, 2.0)),
        ((32, 32, 32), (1.0, 1.0, 1.0)),
    )
    proposal = propose(dataset, 3)
    assert proposal.inference.spacing_um == (1000, 1000, 2000)
    assert proposal.inference.patch == (32, 32, 16)


@pytest.mark.parametrize("dims", [2, 3])
def test_propose__for_anything__can_be_run_within_its_own_caps(tmp_path: Path, dims: int) -> None:
    networks = pytest.importorskip("pouw.ml.networks")
    proposal = propose(dataset_of(tmp_path, ((500, 500, 100), (0.5, 0.5, 3.0))), dims)
    network, patch = proposal.network, proposal.inference.patch
    arguments = check_patch(network, 3, patch)
    bound = activation_bound(arguments, 1, 3, patch)
    assert networks.activation_bytes(network, 1, 3, patch) <= bound
    assert 2 * bound <= proposal.caps.activation_bytes
    model = networks.build(network, 1, 3, parameters_cap=proposal.caps.parameters)
    assert 4 * networks.parameter_count(model) < proposal.caps.model_bytes


def test_propose__in_four_dimensions__is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not 4D"):
        propose(dataset_of(tmp_path, ((8, 8, 8), (1.0, 1.0, 1.0))), 4)


@pytest.mark.skipif(not DATA.is_dir(), reason="POUW_DATA names no folder with hippocampus/")
def test_propose__for_the_hippocampus__covers_it_at_1_mm() -> None:
    inference = propose(read_dataset(DATA), 3).inference
    assert inference.patch == (40, 56, 40)
    assert inference.spacing_um == ()
