"""Folders of images that nobody has labelled. No torch here: files are only listed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pouw.errors import DataError
from pouw.ml.layout import CaseFile
from pouw.ml.readers.rasters import ENDINGS

NIFTI: Final = (".nii.gz", ".nii")
_CHANNEL: Final = re.compile(r"(.+)_(\d{4})")


def images_in(folder: Path, channels: int) -> list[CaseFile]:
    """The cases of a folder: one file each, or nnU-Net's NAME_0000.nii.gz, one a channel.

    DataError where a channel is missing, a case is there twice, or there is none.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        ending = next((end for end in (*NIFTI, *ENDINGS) if path.name.lower().endswith(end)), "")
        if path.name.startswith(".") or not ending:
            continue
        name = path.name[: -len(ending)]
        match = _CHANNEL.fullmatch(name) if ending in NIFTI else None
        # A frame or a slice has such a number too.
        split = match is not None and int(match[2]) < channels
        name, number = (match[1], int(match[2])) if match and split else (name, 0)
        if found.setdefault(name, {}).setdefault(number, path) != path:
            raise DataError(f"{path}: {found[name][number].name} is the same case")
        if split and number and number - 1 not in found[name]:
            raise DataError(f"{path}: {name} has no channel {number - 1}")
    if not found:
        raise DataError(
            f"{folder}: no image", hint=f"{', '.join((*NIFTI, *ENDINGS))} are read, one a case"
        )
    return [CaseFile(name, tuple(parts.values()), None) for name, parts in found.items()]
