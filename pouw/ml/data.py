"""Everything about cases in one import. No torch here: a publisher needs none.

Axes: channels first, then X, Y, Z as stored; a 2D network sees the slices along Z, the last.
"""

from __future__ import annotations

from pouw.ml.cases import Case, load_case
from pouw.ml.layout import CaseFile, Dataset, read_dataset
from pouw.ml.preprocess import (
    Image,
    Label,
    normalise,
    resample_image,
    resample_label,
    resampled_shape,
)
from pouw.ml.split import split_validation

__all__ = [
    "Case",
    "CaseFile",
    "Dataset",
    "Image",
    "Label",
    "load_case",
    "normalise",
    "read_dataset",
    "resample_image",
    "resample_label",
    "resampled_shape",
    "split_validation",
]
