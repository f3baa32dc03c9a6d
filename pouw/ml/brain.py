"""The built-in data set: brain tissue in the MNI152 T1 template that nilearn carries.

Grey and white matter come from the template's own probability maps. The template is left-right
symmetric, so cases are slabs along z alone, 4 mm apart: training, validation and test never share a
slice. As it is, two intensity thresholds solve it; each case is therefore degraded by a bias
field, a gamma and noise of its own, and the thresholds' score is there to be beaten.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Final

import nibabel
import numpy as np
from numpy.typing import NDArray

from pouw.documents import Caps
from pouw.errors import DataError
from pouw.ml.data import Case, Dataset, Image, load_case, normalise, read_dataset
from pouw.ml.dice import case_counts, score_ppm
from pouw.ml.nifti import read_voxels
from pouw.ml.recipe import Proposal, recipe, small_unet

LABELS: Final = ("background", "grey matter", "white matter")
CHANNEL: Final = "T1"
GAP_MM: Final = 4
_CROP: Final = (slice(22, 174), slice(24, 216))  # all tissue, axes multiples of 8
_FIRST_SLICE: Final = {2: 36, 3: 16}
_SLICES: Final = {2: 6, 3: 16}
_TEST: Final = {2: (2, 5, 8), 3: (2, 4)}
_CASES: Final = {2: 11, 3: 7}
_PATCH: Final = {2: (96, 96), 3: (64, 64, 16)}
_BIAS: Final = 0.3
_GAMMA: Final = 0.3
_NOISE: Final = 0.05
_SCALE: Final = 1000
_FILES: Final = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


def write_brain_set(out: Path, spatial_dims: int, seed: int) -> Dataset:
    """Write the set below ``out`` in nnU-Net layout and return it.

    2D: 8 training and 3 test blocks of 6 axial slices above the cerebellum; 3D: 5 and 2 slabs of
    16. 1 mm, int16, 152 x 192 in plane. ``seed`` decides how each case is degraded. DataError
    without nilearn's files or where ``out`` already holds a data set.
    """
    if spatial_dims not in _CASES:
        raise DataError(f"the brain set is 2D or 3D, not {spatial_dims}D")
    if (out / "dataset.json").exists():
        raise DataError(f"{out}: already holds a data set", hint="name another folder")
    t1, labels = _template()
    for index in range(_CASES[spatial_dims]):
        start = _FIRST_SLICE[spatial_dims] + index * (_SLICES[spatial_dims] + GAP_MM)
        window = (*_CROP, slice(start, start + _SLICES[spatial_dims]))
        random = np.random.Generator(np.random.Philox([seed, spatial_dims, index]))
        image = _degrade(t1[window], random)
        part = "Ts" if index in _TEST[spatial_dims] else "Tr"
        name = f"brain{spatial_dims}d_{index:02d}"
        _save(out / f"images{part}" / f"{name}_0000.nii.gz", image, start)
        _save(out / f"labels{part}" / f"{name}.nii.gz", labels[window], start)
    document = {
        "channel_names": {"0": CHANNEL},
        "labels": {name: value for value, name in enumerate(LABELS)},
        "numTraining": _CASES[spatial_dims] - len(_TEST[spatial_dims]),
        "file_ending": ".nii.gz",
    }
    (out / "dataset.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return read_dataset(out)


def _template() -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """T1 intensities from 0 to 1 and labels, both (X, Y, Z) at 1 mm."""
    t1, grey, white = (_map(kind) for kind in ("t1", "gm", "wm"))
    labels = np.zeros(t1.shape, dtype=np.uint8)
    labels[(grey >= 128) & (grey >= white)] = 1
    labels[(white > 128) & (white > grey)] = 2
    return t1 / float(t1.max()), labels


def _map(kind: str) -> NDArray[np.int32]:
    hint = "pip install 'nilearn>=0.13.1,<0.15' brings the MNI152 template"
    try:
        files = importlib.metadata.files("nilearn") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError("the brain set needs nilearn's files", hint=hint) from error
    wanted = _FILES.format(kind)
    found = [Path(str(file.locate())) for file in files if file.as_posix() == wanted]
    if not found or not found[0].is_file():
        raise DataError(f"nilearn is installed without {wanted}", hint=hint)
    return read_voxels(found[0])[1].astype(np.int32)


def _degrade(clean: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int16]:
    """``clean`` (0 to 1) under a smooth bias field, a gamma and Rician noise, times 1,000."""
    axes = [np.linspace(-1.0, 1.0, size) for size in clean.shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    terms = (x, y, 0.5 * z, x * y, x * x - 1 / 3, y * y - 1 / 3)
    weights = random.uniform(-_BIAS, _BIAS, len(terms))
    field = np.exp(sum(weight * term for weight, term in zip(weights, terms, strict=True)))
    signal = clean ** np.exp(random.uniform(-_GAMMA, _GAMMA)) * field
    real = signal + random.normal(0.0, _NOISE, clean.shape)
    imaginary = random.normal(0.0, _NOISE, clean.shape)
    return np.asarray(np.rint(np.hypot(real, imaginary) * _SCALE), dtype=np.int16)


def _save(path: Path, voxels: NDArray[np.int16] | NDArray[np.uint8], start: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4)
    affine[2, 3] = start
    image = nibabel.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    nibabel.save(image, path)


def threshold_baseline_ppm(dataset: Dataset) -> int:
    """The test score of the two fixed intensity thresholds that fit the training cases best.

    Voxels are background below the first, label 1 up to the second, label 2 above; intensities
    are as stored or z-scored, whichever fits better. What a network has to beat to have learnt
    anything. DataError where the data set has other than three labels or no labelled test case.
    """
    labels = len(dataset.labels)
    if labels != 3:
        raise DataError(f"two thresholds make three labels, the data set has {labels}")
    train = [load_case(file, labels) for file in dataset.train]
    fits = []
    for scale in ("none", "zscore"):
        images = [_intensities(case, scale) for case in train]
        cuts = np.linspace(min(i.min() for i in images), max(i.max() for i in images), 128)
        total = np.zeros((len(cuts), len(cuts)))
        for case, image in zip(train, images, strict=True):
            assert case.label is not None
            total += _dice_of_pairs(image, case.label, cuts)
        low, high = np.unravel_index(int(total.argmax()), total.shape)
        fits.append((float(total.max()), scale, (float(cuts[low]), float(cuts[high]))))
    _, scale, pair = max(fits)
    scored = []
    for file in dataset.test:
        case = load_case(file, labels)
        if case.label is not None:
            predicted = np.digitize(_intensities(case, scale), pair).astype(np.uint8)
            scored.append(case_counts(predicted, case.label, labels))
    return score_ppm(scored)


def _intensities(case: Case, scale: str) -> Image:
    """The first channel (X, Y, Z), as stored or z-scored."""
    image = (
        normalise(case.image, recipe((8, 8), overlap_ppm=0)) if scale == "zscore" else case.image
    )
    return np.asarray(image[0])


def _dice_of_pairs(
    image: NDArray[np.float32], label: NDArray[np.uint8], cuts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The case's mean Dice for each pair (first, second) of ``cuts``; 0 where first > second."""
    bins = np.digitize(image, cuts)
    above = np.stack(  # above[k, c]: voxels of label k at or above cut c
        [
            np.bincount(bins[label == value], minlength=len(cuts) + 1)[::-1].cumsum()[::-1][1:]
            for value in (0, 1, 2)
        ]
    ).astype(np.float64)
    grey, white = (label == 1).sum(), (label == 2).sum()
    every = above.sum(axis=0)
    grey_dice = 2 * (above[1][:, None] - above[1]) / np.maximum(1, every[:, None] - every + grey)
    white_dice = 2 * above[2] / np.maximum(1, every + white)
    mean: NDArray[np.float64] = np.triu((grey_dice + white_dice[None, :]) / 2)
    return mean


def brain_proposal(spatial_dims: int) -> Proposal:
    """The network and recipe that are known to learn the set within a minute on one thread."""
    if spatial_dims not in _CASES:
        raise DataError(f"the brain set is 2D or 3D, not {spatial_dims}D")
    caps = Caps(model_bytes=8 << 20, parameters=1_000_000, activation_bytes=1 << 28)
    patch = _PATCH[spatial_dims]
    return Proposal(
        small_unet(spatial_dims, (8, 16, 32, 64)), recipe(patch, overlap_ppm=250_000), caps
    )
