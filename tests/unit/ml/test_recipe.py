from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pouw.documents import Window
from pouw.errors import DataError
from pouw.ml.arguments import check_caps, check_patch
from pouw.ml.cases import Case
from pouw.ml.data import Dataset
from pouw.ml.examine import examine
from pouw.ml.fingerprint import CaseFacts, Fingerprint, facts_of, fingerprint_of
from pouw.ml.readers import read_folder
from pouw.ml.recipe import Wishes, propose
from pouw.ml.topology import plan_topology

DATA = Path(os.environ.get("POUW_DATA", "../shared/data"))
Shape = tuple[int, int, int]
MILLIMETRE = (1000, 1000, 1000)


def dataset_of(*channels: str) -> Dataset:
    return Dataset(Path(), channels or ("image",), ("background", "a", "b"), (), ())


def fingerprint(*cases: tuple[Shape, Shape], filled: float = 1.0) -> Fingerprint:
    foreground = np.linspace(0, 100, 201, dtype=np.float32)[np.newaxis]
    return fingerprint_of(
        [CaseFacts(shape, spacing, filled, foreground, (5, 3, 2)) for shape, spacing in cases]
    )


def iso(*shapes: Shape) -> Fingerprint:
    return fingerprint(*((shape, MILLIMETRE) for shape in shapes))


@pytest.mark.parametrize(("dims", "patch"), [(2, (40, 56)), (3, (40, 56, 24))])
def test_propose__for_small_images__covers_the_median_one(dims: int, patch: Shape) -> None:
    found = iso((36, 50, 20), (37, 51, 19), (99, 80, 60))
    proposal = propose(dataset_of(), found, Wishes(spatial_dims=dims))
    assert proposal.inference.patch == patch
    assert proposal.inference.spacing_um == ()
    assert proposal.network.name == "unet"
    assert proposal.network.arguments["spatial_dims"] == dims


def test_propose__for_large_images__is_a_cube_of_what_is_cheap() -> None:
    found = iso((600, 300, 200))
    assert propose(dataset_of(), found, Wishes(spatial_dims=2)).inference.patch == (256, 256)
    assert propose(dataset_of(), found).inference.patch == (64, 64, 64)
    thin = iso((600, 300, 16))
    assert propose(dataset_of(), thin).inference.patch == (128, 128, 16)


def test_propose__for_flat_images__is_2d_and_for_volumes_3d() -> None:
    assert len(propose(dataset_of(), iso((320, 256, 1))).inference.patch) == 2
    assert len(propose(dataset_of(), iso((320, 256, 9))).inference.patch) == 3


def test_propose__for_differing_spacings__resamples_to_the_median() -> None:
    found = fingerprint(
        ((32, 32, 16), (1000, 1000, 2000)),
        ((32, 32, 18), (1000, 1000, 1800)),
        ((32, 32, 32), MILLIMETRE),
    )
    inference = propose(dataset_of(), found).inference
    assert inference.spacing_um == (1000, 1000, 1800)
    assert inference.patch == (32, 32, 24)
    flat = propose(dataset_of(), found, Wishes(spatial_dims=2)).inference
    assert flat.spacing_um == ()  # slices agree; what lies between them does not matter


def test_propose__for_a_coarse_axis__takes_its_tenth_percentile() -> None:
    cases = [((64, 64, 8), (1000, 1000, 10_000 - 100 * number)) for number in range(40)]
    spacing = propose(dataset_of(), fingerprint(*cases)).inference.spacing_um
    assert spacing == (1000, 1000, 6400)


def test_propose__for_anisotropic_voxels__is_nnunets_topology() -> None:
    found = fingerprint(((256, 256, 24), (500, 500, 4000)))
    proposal = propose(dataset_of(), found)
    assert proposal.network.name == "dynunet"
    kernels, strides = (proposal.network.arguments[key] for key in ("kernels", "strides"))
    assert isinstance(kernels, tuple)
    assert isinstance(strides, tuple)
    assert kernels[:6] == (3, 3, 1, 3, 3, 1)
    assert kernels[-3:] == (3, 3, 3)
    assert strides[:6] == (1, 1, 1, 2, 2, 1)
    check_patch(proposal.network, 3, proposal.inference.patch)


def test_plan_topology__of_the_prostate_example_of_nnunet__is_what_it_plans() -> None:
    # MSD Task05: patch 20 x 320 x 256 at 3.6 x 0.62 x 0.62 mm, as its plans file has it.
    topology = plan_topology((20, 320, 256), (3600, 620, 620), 7)
    assert topology.strides == (
        (1, 1, 1),
        (1, 2, 2),
        (1, 2, 2),
        (2, 2, 2),
        (2, 2, 2),
        (1, 2, 2),
        (1, 2, 2),
    )
    assert topology.kernels == ((1, 3, 3), (1, 3, 3), *((3, 3, 3),) * 5)


@pytest.mark.parametrize(
    ("channels", "modality", "filled", "kind"),
    [
        (("CT",), None, 1.0, "window"),
        (("image",), "CT", 1.0, "window"),
        (("T1",), None, 0.5, "zscore-nonzero"),
        (("T1",), None, 0.8, "zscore"),
        (("red", "green", "blue"), None, 0.5, "zscore"),
    ],
)
def test_propose__normalises_by_modality(
    channels: tuple[str, ...], modality: str | None, filled: float, kind: str
) -> None:
    found = fingerprint(((64, 64, 64), MILLIMETRE), filled=filled)
    found = Fingerprint(
        found.shapes, found.spacings_um, filled, found.windows * len(channels), found.voxels
    )
    inference = propose(dataset_of(*channels), found, Wishes(modality=modality)).inference
    assert inference.normalisation == kind
    assert len(inference.windows) == (len(channels) if kind == "window" else 0)


def test_fingerprint__of_labelled_images__describes_the_foreground_alone() -> None:
    image = np.zeros((1, 40, 10, 10), np.float32)
    image[0, 10:30] = np.linspace(1, 1000, 2000, dtype=np.float32).reshape(20, 10, 10)
    label = np.zeros((40, 10, 10), np.uint8)
    label[10:30] = 1
    found = fingerprint_of([facts_of(Case("x", image, label, MILLIMETRE), 3)])
    assert found.filled == 0.5
    assert found.voxels == (2000, 2000, 0)
    values = image[0, 10:30].astype(np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    (window,) = found.windows
    expected = (low, high, values.mean(), values.std())
    assert window == Window(
        **dict(
            zip(
                ("lower_milli", "upper_milli", "mean_milli", "deviation_milli"),
                (round(1000 * float(one)) for one in expected),
                strict=True,
            )
        )
    )


@pytest.mark.parametrize(
    ("dims", "name"),
    [(2, n) for n in ("unet", "dynunet", "segresnet", "fcn34")]
    + [(3, n) for n in ("unet", "dynunet", "segresnet", "unet3d-paper")],
)
@pytest.mark.parametrize("shape", [(500, 500, 100), (20, 20, 5), (3, 2, 1)])
def test_propose__for_anything__keeps_to_its_own_caps(dims: int, name: str, shape: Shape) -> None:
    found = fingerprint((shape, (500, 500, 3000)))
    proposal = propose(dataset_of(), found, Wishes(spatial_dims=dims, network=name))
    assert proposal.network.name == name
    patch = proposal.inference.patch
    check_caps(proposal.network, 1, 3, patch, proposal.caps)
    arguments = check_patch(proposal.network, 3, patch)
    assert 2 * arguments.activation_bound(1, 3, patch) <= proposal.caps.activation_bytes


@pytest.mark.parametrize(
    ("dims", "name", "message"),
    [
        (4, None, "not 4D"),
        (3, "fcn34", "no 3D network 'fcn34'"),
        (2, "unet3d-paper", "no 2D network"),
        (2, "resnet", "no 2D network 'resnet'"),
    ],
)
def test_propose__of_what_is_not_to_be_had__is_refused(
    dims: int, name: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        propose(dataset_of(), iso((64, 64, 64)), Wishes(spatial_dims=dims, network=name))


@pytest.mark.skipif(
    not (DATA / "hippocampus").is_dir(), reason="POUW_DATA names no folder with hippocampus/"
)
def test_propose__for_the_hippocampus__covers_it_at_1_mm() -> None:
    found = examine(read_folder(DATA / "hippocampus"))
    inference = propose(found.source.dataset, found.usable()).inference
    assert inference.patch == (40, 56, 40)
    assert inference.spacing_um == ()
    assert inference.normalisation == "zscore"
