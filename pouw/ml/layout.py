"""Folders of images and labels: the layouts of nnU-Net v2 and the Medical Segmentation Decathlon.

Files are only listed here, never decoded, except where ``dataset.json`` is missing and the labels
have to be found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from pydantic_core import from_json

from pouw.errors import DataError
from pouw.ml.nifti import MAX_CHANNELS, read_voxels

MAX_CASES: Final = 100_000
MAX_LABELS: Final = 256
_MAX_JSON_BYTES: Final = 1 << 20
_DESCRIPTION: Final = "dataset.json"
_ENDINGS: Final = (".nii.gz", ".nii")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,199}")
_LITTER: Final = frozenset({"thumbs.db", "desktop.ini"})
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")
_CHANNEL: Final = re.compile(r"(.+)_(\d{4})")
_HINT: Final = (
    "a folder in nnU-Net v2 layout (dataset.json, imagesTr/NAME_0000.nii.gz, labelsTr/NAME.nii.gz) "
    "or of the Medical Segmentation Decathlon"
)


@dataclass(frozen=True, slots=True)
class CaseFile:
    """Where one case lies: an image per channel, or one whose fourth axis is the channel.

    ``patient`` where something beside the name tells whose it is.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    patient: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder of cases, each list in the order of names; the index of a label is its value."""

    root: Path
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    train: tuple[CaseFile, ...]
    test: tuple[CaseFile, ...]


def read_dataset(root: Path) -> Dataset:
    """The cases below ``root``; every training case has a label, a test case may have one.

    Without ``dataset.json``, one channel and the labels found in the files are taken; DataError
    where the folder follows neither layout.
    """
    return list_dataset(root, _refuse)


def read_opened(root: Path) -> Dataset:
    """``read_dataset`` of an opened archive, which has ``dataset.json``: nothing is decoded."""
    if not (root / _DESCRIPTION).is_file():
        raise DataError(f"{root}: {_DESCRIPTION} is missing", hint=_HINT)
    return read_dataset(root)


Report = Callable[[DataError], object]


def _refuse(problem: DataError) -> NoReturn:
    raise problem


def list_dataset(root: Path, report: Report) -> Dataset:
    """``read_dataset``, but cases that are not whole are reported and left out.

    DataError only where nothing can be said of single cases.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", hint=_HINT)
    parts = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
    files = {part: _files(root / part, report) for part in parts}
    described = root / _DESCRIPTION
    if described.exists():
        document = _read_json(described)
        channels, labels = _channels(described, document), _labels(described, document)
        split = "channel_names" in document or _named_by_channel(files)
    else:
        channels, labels, split = ("image",), _labels_found(root, files), _named_by_channel(files)
    if not files["imagesTr"] and not files["imagesTs"]:
        raise DataError(f"{root}: neither imagesTr nor imagesTs holds an image", hint=_HINT)
    numbers = list(range(len(channels))) if split else None
    train = _cases(root, files["imagesTr"], files["labelsTr"], numbers, report)
    test = _cases(root, files["imagesTs"], files["labelsTs"], numbers, report)
    for case in train:
        if case.label is None:
            report(DataError(f"{root}: labelsTr has no label for {case.name}", hint=_HINT))
    train = tuple(case for case in train if case.label is not None)
    return Dataset(root, channels, labels, train, test)


def _files(folder: Path, report: Report) -> dict[str, Path]:
    """Images of a folder by name without ending; litter (``._`` of macOS) is ignored."""
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        if is_litter(path):
            continue
        ending = next((end for end in _ENDINGS if path.name.endswith(end)), None)
        if ending is None or not path.is_file():
            problem = f"{path}: not a {' or '.join(_ENDINGS)} file"
            report(DataError(problem, hint="convert the images to NIfTI-1"))
            continue
        name = path.name.removesuffix(ending)
        unusable = case_name(path, name)
        if unusable or name in found:
            report(unusable or DataError(f"{path}: the same case is there twice"))
            continue
        found[name] = path
        if len(found) > MAX_CASES * MAX_CHANNELS:
            raise DataError(f"{folder}: more than {MAX_CASES} cases")
    return found


def is_litter(path: Path) -> bool:
    """Whether macOS or Windows left the file there, or it is hidden."""
    return path.name.startswith(".") or path.name.lower() in _LITTER


def case_name(path: Path, name: str) -> DataError | None:
    """What is wrong with ``name`` as the name of a case; None where nothing is."""
    if _NAME.fullmatch(name):
        return None
    return DataError(
        f"{str(path)!r} cannot name a case",
        hint="letters a to z and A to Z, digits, dots, blanks, _ and - make a name, a letter or "
        "digit begins it; rename files with umlauts, accents or other letters",
    )


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels that the file ``dataset.json`` names, by value; DataError where it does not."""
    return _labels(path, _read_json(path))


def _named_by_channel(files: Mapping[str, Mapping[str, Path]]) -> bool:
    """Whether images carry nnU-Net's channel suffix, that is, labels are named without it."""
    for images, labels in (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")):
        for name in files[images]:
            match = _CHANNEL.fullmatch(name)
            return bool(match and name not in files[labels] and match[1] in files[labels])
    return False


def _cases(
    root: Path,
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    numbers: list[int] | None,
    report: Report,
) -> tuple[CaseFile, ...]:
    """Cases whose images carry these channel ``numbers``; None: one image each, without one."""
    grouped: dict[str, dict[int, Path]] = {}
    for name, path in images.items():
        match = _CHANNEL.fullmatch(name)
        if numbers is not None and match is None:
            report(DataError(f"{path}: no channel suffix such as _0000", hint=_HINT))
            continue
        case, number = (match[1], int(match[2])) if numbers and match else (name, 0)
        grouped.setdefault(case, {})[number] = path
    strays = sorted(set(labels) - set(grouped))
    expected = numbers or [0]
    for case, parts in list(grouped.items()):
        if sorted(parts) != expected:
            report(
                DataError(
                    f"{root}: {case} has channels {sorted(parts)}, "
                    f"dataset.json names {len(expected)}"
                )
            )
            del grouped[case]
    for stray in strays:
        report(DataError(f"{root}: {labels[stray].name} labels no image", hint=_HINT))
    return tuple(
        CaseFile(case, tuple(grouped[case][number] for number in expected), labels.get(case))
        for case in sorted(grouped)
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise DataError(f"{path}: larger than {_MAX_JSON_BYTES} bytes")
        # Not json.loads: where a raised recursion limit is in force (py-evm raises it), deep
        # nesting overflows its C stack; this parser bounds the depth itself.
        document = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: not a JSON object", hint=_HINT)
    return document


def _channels(path: Path, document: Mapping[str, Any]) -> tuple[str, ...]:
    named = document.get("channel_names", document.get("modality"))
    if not isinstance(named, dict) or not 1 <= len(named) <= MAX_CHANNELS:
        raise DataError(
            f"{path}: channel_names (nnU-Net) or modality (MSD) must name 1 to {MAX_CHANNELS}"
        )
    keys = [str(number) for number in range(len(named))]
    if sorted(named, key=str) != sorted(keys):
        raise DataError(f"{path}: channels must be numbered from 0")
    return tuple(_word(path, named[key]) for key in keys)


def _labels(path: Path, document: Mapping[str, Any]) -> tuple[str, ...]:
    named = document.get("labels")
    if not isinstance(named, dict) or not 2 <= len(named) <= MAX_LABELS:
        raise DataError(f"{path}: labels must name 2 to {MAX_LABELS} labels")
    values: dict[int, str] = {}
    for key, value in named.items():
        number, name = (value, key) if "channel_names" in document else (key, value)
        if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) < 4:
            number = int(number)
        if isinstance(name, int) and isinstance(number, str):  # nnU-Net's order in an MSD file
            number, name = name, number
        if not isinstance(number, int) or isinstance(number, bool) or name == "ignore":
            raise DataError(
                f"{path}: label {key!r}: {value!r} is not one value",
                hint="regions and the ignore label are not supported: one integer for each label",
            )
        values[number] = _word(path, name)
    if len(set(values.values())) != len(values):
        raise DataError(f"{path}: two labels have one name")
    if sorted(values) != list(range(len(named))):
        raise DataError(f"{path}: labels must be 0 (background), 1, 2, ... without a gap")
    return tuple(values[number] for number in range(len(values)))


def _word(path: Path, name: object) -> str:
    if not isinstance(name, str) or not _WORD.fullmatch(name):
        raise DataError(
            f"{path}: {name!r} cannot be a name", hint="letters, digits, dots, blanks, _ and -"
        )
    return name


def _labels_found(root: Path, files: Mapping[str, Mapping[str, Path]]) -> tuple[str, ...]:
    """Names for the label values in all label files, where these are integers below 256."""
    highest = 0
    for path in (*files["labelsTr"].values(), *files["labelsTs"].values()):
        _, voxels = read_voxels(path)
        values = np.unique(voxels)
        if values[0] < 0 or values[-1] >= MAX_LABELS or (values != np.floor(values)).any():
            raise DataError(f"{path}: labels are not integers from 0 to {MAX_LABELS - 1}")
        highest = max(highest, int(values[-1]))
    if highest == 0:
        raise DataError(f"{root}: no dataset.json, and no labels to infer it from", hint=_HINT)
    return ("background", *(f"label {value}" for value in range(1, highest + 1)))
