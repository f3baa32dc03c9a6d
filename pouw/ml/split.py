"""Splitting a data set: validation from training, and the hidden test set from the rest.

Choices follow sha256 of a seed and the patient's name: everybody makes the same validation split,
nobody without the publisher's seed can foretell the test split. Cases of one patient stay together
where names tell.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nibabel
import numpy as np
from numpy.typing import NDArray

from pouw.errors import DataError
from pouw.hashing import sha256
from pouw.ml.bare import copy_bare
from pouw.ml.layout import CaseFile, Dataset
from pouw.ml.readers.source import Source
from pouw.types import SCORE_ONE_PPM

Progress = Callable[[int, int], object]
"""Called with how many cases are done and how many there are."""

# Beginnings that name a patient (BIDS, TCGA, "patient12"), and endings that name a part of one.
_PATIENT: Final = re.compile(
    r"(sub-[a-z0-9]+|tcga-[a-z0-9]{2}-[a-z0-9]{4}|(?:patient|pat|subject|subj)[ _-]?[0-9]+)"
    r"(?![a-z0-9])",
    re.IGNORECASE,
)
_PART: Final = re.compile(
    r"(?:[ _.-](?:(?:slice|sl|frame|time|tp|t|visit|ses|session|scan|run|image|img|patch|tile|crop|"
    r"roi|view)[ _-]?[0-9]+|left|right|[lr]|o[ds]))+",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled cases to train on, and labelled cases to score on."""

    train: tuple[CaseFile, ...]
    test: tuple[CaseFile, ...]


def patients_of(cases: Sequence[CaseFile]) -> dict[str, str]:
    """Whose each case is, by the case's name; the case's own name where nothing tells.

    Where all names seem to belong to one patient they tell nothing.
    """
    found = {case.name: case.patient or _patient(case.name) for case in cases}
    if len(set(found.values())) == 1:
        return {case.name: case.name for case in cases}
    return found


def _patient(name: str) -> str:
    match = _PATIENT.match(name)
    if match:
        return match[1].lower()
    for start in range(1, len(name)):
        if _PART.fullmatch(name, start):
            return name[:start]
    return name


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
    """Names of the held-out cases: patients in the order of sha256(seed, patient).

    So many that they are the fraction at least, but never all.
    """
    if len(cases) < 2:
        raise DataError(f"{len(cases)} labelled case(s) cannot be split", hint="give two or more")
    if not 0 < fraction_ppm < SCORE_ONE_PPM:
        raise DataError(f"a fraction of {fraction_ppm} ppm leaves one side empty")
    wanted = min(max(1, len(cases) * fraction_ppm // SCORE_ONE_PPM), len(cases) - 1)
    groups: dict[str, list[str]] = {}
    for name, patient in patients_of(cases).items():
        groups.setdefault(patient, []).append(name)
    chosen: list[str] = []
    for patient in sorted(groups, key=lambda name: sha256(f"{seed}{name}".encode())):
        if len(chosen) < wanted and len(chosen) + len(groups[patient]) < len(cases):
            chosen += groups[patient]
    return frozenset(chosen)


def may_be_hidden(dataset: Dataset) -> tuple[CaseFile, ...]:
    """The cases that the test set is made of: its labelled test cases, else any training cases."""
    return tuple(case for case in dataset.test if case.label is not None) or dataset.train


def divide(dataset: Dataset, fraction_ppm: int, seed: str) -> Split:
    """Training and test cases of a data set.

    Its labelled test cases are the test set where there are any, else a fraction of the training
    cases chosen by ``seed``. DataError where too few are labelled or a name occurs on both sides.
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
    refuse_twins(train, test)
    return Split(tuple(train), tuple(test))


def refuse_twins(train: Sequence[CaseFile], test: Sequence[CaseFile]) -> None:
    """DataError where a training and a test case have one name."""
    both = sorted({case.name for case in train} & {case.name for case in test})
    if both:
        raise DataError(f"{both[0]} is a training and a test case", hint="give cases other names")


def write_split(
    source: Source, split: Split, out: tuple[Path, Path], progress: Progress | None = None
) -> None:
    """Write the training cases below ``out[0]`` and the test cases below ``out[1]``, as nnU-Net.

    The two may be one folder. NIfTI files with final labels keep their voxels and their grid, but
    no text; everything else is decoded and becomes a NIfTI file a channel, of the smallest type
    that holds it exactly. DataError where a folder is not empty or a case unusable; what was begun
    is left behind then.
    """
    for folder in set(out):
        refuse_full(folder)
    done, total = 0, len(split.train) + len(split.test)
    for folder, part, cases in ((out[0], "Tr", split.train), (out[1], "Ts", split.test)):
        for name in (f"images{part}", f"labels{part}"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for case in cases:
            _write_case(source, case, folder, part)
            done += 1
            if progress:
                progress(done, total)
    for folder in set(out):
        _write_description(source.dataset, folder, len(split.train) if folder == out[0] else 0)


def refuse_full(folder: Path) -> None:
    """DataError where there is anything in ``folder``."""
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: not empty", hint="name a new folder")


def split_into(source: Source, split: Split, out: Path, progress: Progress | None = None) -> None:
    """``write_split`` into the one new folder ``out``, which appears whole or not at all."""
    refuse_full(out)
    whole = out.resolve()
    partial = whole.with_name(f".{whole.name}.part")
    shutil.rmtree(partial, ignore_errors=True)  # what a kill left
    try:
        write_split(source, split, (partial, partial), progress)
        partial.replace(whole)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_case(source: Source, case: CaseFile, out: Path, part: str) -> None:
    images, labels = out / f"images{part}", out / f"labels{part}"
    channels = len(source.dataset.channels)
    if source.copies and len(case.images) == channels and case.label is not None:
        copy_bare(case.label, labels / f"{case.name}{_ending(case.label)}")
        for number, path in enumerate(case.images):
            copy_bare(path, images / f"{case.name}_{number:04d}{_ending(path)}")
        return
    decoded = source.decode(case)
    if decoded.label is None or len(decoded.image) != channels:
        raise DataError(
            f"{case.images[0]}: {len(decoded.image)} channels, {channels} are named; or no label"
        )
    affine = np.diag([*(size / 1000 for size in decoded.spacing_um), 1.0])
    for number, channel in enumerate(decoded.image):
        _save(images / f"{case.name}_{number:04d}.nii.gz", _smallest(channel), affine)
    _save(labels / f"{case.name}.nii.gz", decoded.label, affine)


def _save(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
    image = nibabel.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    nibabel.save(image, path)


def _smallest(channel: NDArray[np.float32]) -> NDArray[Any]:
    """``channel`` in the smallest of uint8, int16, uint16 and float32 that holds it exactly."""
    low, high = float(channel.min()), float(channel.max())
    for kind in (np.uint8, np.int16, np.uint16):
        bounds = np.iinfo(kind)
        if bounds.min <= low and high <= bounds.max:
            whole = channel.astype(kind)
            if np.array_equal(whole, channel):
                return whole
    return channel


def _ending(path: Path) -> str:
    return ".nii.gz" if path.name.endswith(".nii.gz") else ".nii"


def _write_description(dataset: Dataset, out: Path, training: int) -> None:
    document = {
        "channel_names": {str(number): name for number, name in enumerate(dataset.channels)},
        "labels": {name: value for value, name in enumerate(dataset.labels)},
        "numTraining": training,
        "file_ending": ".nii.gz",
    }
    (out / "dataset.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
