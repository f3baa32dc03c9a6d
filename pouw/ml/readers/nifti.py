"""nnU-Net v2 and Medical Segmentation Decathlon folders, with every problem of the listing."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from pouw.errors import DataError
from pouw.ml.cases import load_case
from pouw.ml.layout import list_dataset
from pouw.ml.readers.source import Source

NNUNET: Final = "nnU-Net v2"
DECATHLON: Final = "Medical Segmentation Decathlon"


def read(root: Path) -> Source | None:
    """The folder in one of the two layouts; None where no ``imagesTr`` or ``imagesTs`` is there."""
    if not (root / "imagesTr").is_dir() and not (root / "imagesTs").is_dir():
        return None
    problems: list[DataError] = []
    try:
        dataset = list_dataset(root, problems.append)
    except DataError as error:
        if not problems:
            raise
        first = problems[0]  # why nothing is left, more likely than not
        raise DataError(f"{first} ({len(problems)} problem(s) in all)", hint=first.hint) from error
    cases = (*dataset.train, *dataset.test)
    numbered = any(not case.images[0].name.startswith(f"{case.name}.") for case in cases)
    described = (root / "dataset.json").exists()
    return Source(
        NNUNET if numbered else DECATHLON,
        dataset,
        functools.partial(load_case, labels=len(dataset.labels)),
        tuple(problems),
        () if described else ("no dataset.json: one channel, labels by their values",),
        copies=True,
    )
