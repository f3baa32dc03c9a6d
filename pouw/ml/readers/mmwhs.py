"""MM-WHS 2017: whole hearts in CT or MR (Zhuang et al., Medical Image Analysis 2019).

``ct_train_1001_image.nii.gz`` and ``ct_train_1001_label.nii.gz``, in one folder or in ``ct_train``
and ``ct_test`` below it. Labels are stored as 205, 420, 500, ...; they become 1, 2, 3, ... in that
order.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np

from pouw.errors import DataError
from pouw.ml.cases import Case, load_image
from pouw.ml.layout import CaseFile, Dataset
from pouw.ml.nifti import read_header, read_voxels
from pouw.ml.preprocess import Label
from pouw.ml.readers.source import Source

NAME: Final = "MM-WHS 2017 challenge"
STRUCTURES: Final = {
    205: "myocardium of the left ventricle",
    420: "left atrium",
    500: "left ventricle",
    550: "right atrium",
    600: "right ventricle",
    820: "ascending aorta",
    850: "pulmonary artery",
}
# The published files hold some voxels of 421, which the organisers call a slip for 420.
_VALUES: Final = {0: 0, 421: 2, **{value: n for n, value in enumerate(STRUCTURES, start=1)}}
_FILE: Final = re.compile(r"((ct|mr)_(train|test)_(\d{1,6}))_(image|label)\.nii(?:\.gz)?")


def read(root: Path) -> Source | None:
    """The folder as an MM-WHS data set; None where it is something else."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    found: dict[str, dict[str, Path]] = {}
    kinds: dict[str, int] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            match = _FILE.fullmatch(path.name)
            if match and path.is_file():
                found.setdefault(match[1], {})[match[5]] = path
                kinds[match[2]] = kinds.get(match[2], 0) + 1
    if not found:
        return None
    if len(kinds) > 1:
        raise DataError(
            f"{root}: both CT and MR", hint="a task has one modality: give it a folder of one"
        )
    modality = next(iter(kinds)).upper()
    problems = [
        DataError(f"{root}: {name} has no {missing}")
        for name, parts in sorted(found.items())
        for missing in ("image", "label")
        if missing not in parts and (missing == "image" or "_train_" in name)
    ]
    cases = [
        CaseFile(name, (parts["image"],), parts.get("label"))
        for name, parts in sorted(found.items())
        if "image" in parts
    ]
    dataset = Dataset(
        root,
        (modality,),
        ("background", *STRUCTURES.values()),
        tuple(case for case in cases if "_train_" in case.name and case.label),
        tuple(case for case in cases if "_test_" in case.name),
    )
    return Source(NAME, dataset, decode, tuple(problems), modality=modality)


def decode(file: CaseFile) -> Case:
    """One volume (1, X, Y, Z) with labels 1 to 7."""
    image, spacing_um = load_image(file)
    if file.label is None:
        return Case(file.name, image, None, spacing_um)
    shape = read_header(file.label).shape
    if shape != image.shape[1:]:
        raise DataError(f"{file.label}: shape {shape}, its image has {image.shape[1:]}")
    return Case(file.name, image, _structures(file.label), spacing_um)


def _structures(path: Path) -> Label:
    _, stored = read_voxels(path)
    values, places = np.unique(stored, return_inverse=True)
    unknown = [f"{float(value):g}" for value in values if float(value) not in _VALUES]
    if unknown:
        raise DataError(
            f"{path}: label values {', '.join(unknown[:5])}",
            hint=f"MM-WHS has {', '.join(map(str, STRUCTURES))}",
        )
    numbers = np.array([_VALUES[int(value)] for value in values], dtype=np.uint8)
    return np.ascontiguousarray(numbers[places].reshape(stored.shape))
