"""Splitting a data set: validation from training, and the hidden test set from the rest.

Choices follow sha256 of a seed and the case's name: everybody makes the same validation split,
nobody without the publisher's seed can foretell the test split.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from pouw.errors import DataError
from pouw.hashing import sha256
from pouw.ml.cases import load_case
from pouw.ml.layout import CaseFile, Dataset
from pouw.types import SCORE_ONE_PPM


def split_validation(
    cases: Sequence[CaseFile], fraction_ppm: int = 200_000
) -> tuple[tuple[CaseFile, ...], tuple[CaseFile, ...]]:
    """``cases`` as (training, validation), the same for everybody: chosen by sha256 of the name.

    At least one case in each; DataError where there are fewer than two.
    """
    chosen = held_out(cases, fraction_ppm, "")
    return (
        tuple(case for case in cases if case.name not in chosen),
        tuple(case for case in cases if case.name in chosen),
    )


def held_out(cases: Sequence[CaseFile], fraction_ppm: int, seed: str) -> frozenset[str]:
    """Names of the held-out fraction: the first in the order of sha256(seed, name)."""
    if len(cases) < 2:
        raise DataError(f"{len(cases)} labelled case(s) cannot be split", hint="give two or more")
    if not 0 < fraction_ppm < SCORE_ONE_PPM:
        raise DataError(f"a fraction of {fraction_ppm} ppm leaves one side empty")
    count = min(max(1, len(cases) * fraction_ppm // SCORE_ONE_PPM), len(cases) - 1)
    names = sorted((case.name for case in cases), key=lambda name: sha256(f"{seed}{name}".encode()))
    return frozenset(names[:count])


def split_test(
    dataset: Dataset, out_train: Path, out_test: Path, fraction_ppm: int, seed: str
) -> tuple[int, int]:
    """Write a training and a test folder in nnU-Net layout; how many cases each got.

    The labelled test cases of ``dataset`` are the test set where there are any, else a fraction of
    the labelled training cases chosen by ``seed``. Every case is decoded once, so that no task is
    published on data that cannot be scored. Names are kept, files copied as they are, but for a
    file with several channels, which becomes a file for each. DataError where a case is unusable,
    too few are labelled, a name occurs on both sides, or a folder is not empty.
    """
    test = [case for case in dataset.test if case.label is not None]
    train = list(dataset.train)
    if not test:
        hidden = held_out(train, fraction_ppm, seed)
        test = [case for case in train if case.name in hidden]
        train = [case for case in train if case.name not in hidden]
    if len(train) < 2:
        raise DataError(
            f"{len(train)} training case(s) are left", hint="a miner needs two to validate on one"
        )
    both = sorted({case.name for case in train} & {case.name for case in test})
    if both:
        raise DataError(f"{both[0]} is a training and a test case", hint="give cases other names")
    for out, part, cases in ((out_train, "Tr", train), (out_test, "Ts", test)):
        if out.exists() and any(out.iterdir()):
            raise DataError(f"{out}: not empty", hint="name a new folder")
        for case in cases:
            _write_case(case, dataset, out, part)
        ending = _ending(cases[0].images[0])
        _write_description(dataset, out, len(cases) if part == "Tr" else 0, ending)
    return len(train), len(test)


def _write_case(case: CaseFile, dataset: Dataset, out: Path, part: str) -> None:
    decoded = load_case(case, len(dataset.labels))
    if len(decoded.image) != len(dataset.channels):
        raise DataError(
            f"{case.images[0]}: {len(decoded.image)} channels, {len(dataset.channels)} are named"
        )
    images, labels = out / f"images{part}", out / f"labels{part}"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    assert case.label is not None
    shutil.copyfile(case.label, labels / f"{case.name}{_ending(case.label)}")
    if len(case.images) == len(dataset.channels):
        for number, path in enumerate(case.images):
            shutil.copyfile(path, images / f"{case.name}_{number:04d}{_ending(path)}")
        return
    affine = np.diag([*(size / 1000 for size in decoded.spacing_um), 1.0])
    for number, channel in enumerate(decoded.image):
        image = nibabel.Nifti1Image(channel, affine)  # type: ignore[no-untyped-call]
        nibabel.save(image, images / f"{case.name}_{number:04d}.nii.gz")


def _ending(path: Path) -> str:
    return ".nii.gz" if path.name.endswith(".nii.gz") else ".nii"


def _write_description(dataset: Dataset, out: Path, training: int, ending: str) -> None:
    document = {
        "channel_names": {str(number): name for number, name in enumerate(dataset.channels)},
        "labels": {name: value for value, name in enumerate(dataset.labels)},
        "numTraining": training,
        "file_ending": ending,
    }
    (out / "dataset.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
