"""Folders of images as they come; ``read_folder`` finds out which kind one is. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pouw.errors import DataError
from pouw.ml.readers import glas, masks, mmwhs, nifti
from pouw.ml.readers.dicom import dicom_in
from pouw.ml.readers.source import Source

__all__ = ["Source", "read_folder"]

_READERS: Final = (nifti.read, glas.read, mmwhs.read, masks.read)
_HINT: Final = (
    "nnU-Net v2 or Decathlon (imagesTr, labelsTr), GlaS 2015 (train_1.bmp, train_1_anno.bmp), "
    "MM-WHS 2017 (ct_train_1001_image.nii.gz, ..._label.nii.gz), or folders images/ and masks/"
)


def read_folder(root: Path) -> Source:
    """The data set in ``root``, whatever kind it is; DataError where it is none that is known.

    Files are listed, not decoded, as far as the kind allows it.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", hint=_HINT)
    try:
        for read in _READERS:
            source = read(root)
            if source is not None:
                return source
        dicom = dicom_in(root)
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error}") from error
    raise dicom or DataError(f"{root}: not a data set of a known kind", hint=_HINT)
