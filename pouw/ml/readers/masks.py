"""Folders ``images/`` and ``masks/`` with PNG, TIFF or BMP files of the same stems.

Without ``dataset.json`` a mask numbers objects (or marks them with any value), so whatever is above
0 is foreground. With one, ``{"labels": {"background": 0, "tumour": 1}}``, its values are labels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Final

from pouw.errors import DataError
from pouw.ml.layout import CaseFile, Dataset, case_name, is_litter, read_labels
from pouw.ml.readers.dicom import dicom_in
from pouw.ml.readers.pairs import decode_pair
from pouw.ml.readers.rasters import ENDINGS, LOSSLESS, read_pixels
from pouw.ml.readers.source import Source

NAME: Final = "folders images/ and masks/"
# What a pixel measures is not in these files: 1 mm keeps viewers and resampling indifferent.
_SPACING_UM: Final = (1000, 1000, 1000)


def read(root: Path) -> Source | None:
    """The folder as images and masks; None where it is something else."""
    if not (root / "images").is_dir():
        return None
    if not (root / "masks").is_dir():
        raise dicom_in(root / "images") or DataError(
            f"{root}: images/ without masks/",
            hint="put a mask of every image into masks/, under the image's name",
        )
    problems: list[DataError] = []
    images = _files(root / "images", ENDINGS, problems)
    masks = _files(root / "masks", ENDINGS, problems)
    if not images and (dicom := dicom_in(root / "images")):
        raise dicom
    if not images and not problems:
        raise DataError(f"{root / 'images'}: no image", hint=f"{', '.join(ENDINGS)} are read")
    problems += _without_partner(images, masks)
    lossless = {name: path for name, path in masks.items() if path.suffix.lower() in LOSSLESS}
    if lossy := len(masks) - len(lossless):
        problems.append(
            DataError(
                f"{root / 'masks'}: masks may not be JPEG, which changes their values "
                f"({lossy} are)",
                hint=f"save them as {', '.join(LOSSLESS)} from their originals",
            )
        )
        masks = lossless
    cases = tuple(
        CaseFile(name, (images[name],), masks[name]) for name in sorted(set(images) & set(masks))
    )
    labels = read_labels(root / "dataset.json") if (root / "dataset.json").exists() else None
    channels, problem = _channels(cases)
    if problem:
        problems.append(problem)
    dataset = Dataset(root, channels, labels or ("background", "foreground"), cases, ())
    decode = functools.partial(
        decode_pair,
        spacing_um=_SPACING_UM,
        objects=labels is None,
        labels=len(dataset.labels),
    )
    remarks = () if labels else ("masks: whatever is above 0 is foreground",)
    return Source(NAME, dataset, decode, tuple(problems), remarks)


def _without_partner(images: dict[str, Path], masks: dict[str, Path]) -> Iterator[DataError]:
    """Images without masks, then masks without images; where names differ, what to rename."""
    lone = images.keys() - masks.keys()
    strangers = sorted(masks.keys() - images.keys())
    meant = {_image_of(name, lone): masks[name] for name in reversed(strangers)}
    for name in sorted(lone):
        hint = None
        if mask := meant.get(name):
            hint = f"masks bear the image's name: rename {mask.name} to {name}{mask.suffix}"
        yield DataError(f"{images[name]}: no mask {name} in masks/", hint=hint)
    for name in strangers:
        yield DataError(f"{masks[name]}: no image {name} in images/")


def _image_of(mask: str, images: Set[str]) -> str | None:
    """The longest name of an image that the mask's begins or ends with."""
    parts = (part for size in range(len(mask), 0, -1) for part in (mask[:size], mask[-size:]))
    return next((part for part in parts if part in images), None)


def _files(folder: Path, endings: tuple[str, ...], problems: list[DataError]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if is_litter(path):
            continue
        if path.suffix.lower() not in endings or not path.is_file():
            problems.append(DataError(f"{path}: not a file of {', '.join(endings)}"))
        elif path.stem in found:
            problems.append(DataError(f"{path}: {found[path.stem].name} has the same name"))
        elif problem := case_name(path, path.stem):
            problems.append(problem)
        else:
            found[path.stem] = path
    return found


def _channels(cases: tuple[CaseFile, ...]) -> tuple[tuple[str, ...], DataError | None]:
    """By the first image that can be read; the others are compared with it when they are."""
    for case in cases:
        try:
            count = len(read_pixels(case.images[0]))
        except DataError:
            continue
        return (("grey",) if count == 1 else ("red", "green", "blue")), None
    return ("grey",), None if cases else DataError("no image has a mask")
