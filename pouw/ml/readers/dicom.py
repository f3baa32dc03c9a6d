"""DICOM is recognised, in order to be refused by name: series are put together by other programs.

A file has the four letters DICM after 128 bytes (PS3.10, section 7.1).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

from pouw.errors import DataError

_ENDINGS: Final = (".dcm", ".dicom", ".ima", "")
_PREAMBLE_BYTES: Final = 128
_LOOKED_AT: Final = 1000


def dicom_in(folder: Path) -> DataError | None:
    """What to say of the first DICOM file below ``folder``; None where the first files are none."""
    for path in itertools.islice(folder.rglob("*"), _LOOKED_AT):
        if path.suffix.lower() in _ENDINGS and path.is_file() and _is_dicom(path):
            return DataError(
                f"{path}: a DICOM file, which is not read",
                hint="convert to NIfTI first, for example by dcm2niix",
            )
    return None


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] == b"DICM"
