"""An image and its mask in PNG, TIFF or BMP files, as a case."""

from __future__ import annotations

import numpy as np

from pouw.errors import DataError
from pouw.ml.cases import Case
from pouw.ml.layout import MAX_LABELS, CaseFile
from pouw.ml.readers.rasters import read_mask, read_pixels


def decode_pair(
    file: CaseFile, spacing_um: tuple[int, int, int], *, objects: bool, labels: int = 2
) -> Case:
    """The case: image float32 (C, X, Y, Z), label uint8 (X, Y, Z).

    With ``objects`` a mask numbers objects and whatever is above 0 becomes label 1; else its values
    are labels below ``labels``. DataError where the two differ in shape or a value is no label.
    """
    image = read_pixels(file.images[0]).astype(np.float32)
    if file.label is None:
        return Case(file.name, image, None, spacing_um)
    mask = read_mask(file.label, objects=objects)
    if mask.shape != image.shape[1:]:
        raise DataError(f"{file.label}: shape {mask.shape}, its image has {image.shape[1:]}")
    if objects:
        mask = mask > 0
    elif int(mask.max()) >= min(labels, MAX_LABELS):
        hint = (
            "where masks hold 0 and 255, leave dataset.json out (whatever is above 0 is foreground "
            "then), or save 1 for 255"
        )
        raise DataError(
            f"{file.label}: labels 0 to {int(mask.max())}, {labels} are named",
            hint=hint if int(mask.max()) == 255 else None,
        )
    return Case(file.name, image, mask.astype(np.uint8), spacing_um)
