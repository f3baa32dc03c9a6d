"""The fingerprint of a data set: what planning needs to know of its images. No torch.

The idea and the quantities are nnU-Net's (Isensee et al., Nature Methods 2021): shapes, spacings,
how much of an image is not empty, and the intensities of the foreground.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pouw.documents import Window
from pouw.ml.cases import Case

_SAMPLES: Final = 2_000
_LOWER, _UPPER = 0.5, 99.5  # percentiles


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """One case in numbers.

    ``filled``: the share of the image inside the smallest box around what is not 0 (nnU-Net:
    relative size after cropping); ``foreground``: up to 2,000 intensities of labelled voxels
    (channels, samples), evenly spread; ``voxels`` of each label.
    """

    shape: tuple[int, int, int]
    spacing_um: tuple[int, int, int]
    filled: float
    foreground: NDArray[np.float32]
    voxels: tuple[int, ...]

    @property
    def full(self) -> bool:
        """Whether the case is labelled and has no background."""
        return any(self.voxels) and not self.voxels[0]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A data set in numbers; ``windows``: one a channel, from all foreground samples together.

    ``spacings_um`` and ``shapes`` are nnU-Net's ``spacings`` and ``shapes_after_crop`` (nothing is
    cropped here), ``filled`` its ``median_relative_size_after_cropping``, ``windows`` its
    ``foreground_intensity_properties_per_channel``.
    """

    shapes: tuple[tuple[int, int, int], ...]
    spacings_um: tuple[tuple[int, int, int], ...]
    filled: float
    windows: tuple[Window, ...]
    voxels: tuple[int, ...]

    @property
    def median_shape(self) -> tuple[int, int, int]:
        """Of each axis by itself, in voxels as stored."""
        return _medians(self.shapes)

    @property
    def median_spacing_um(self) -> tuple[int, int, int]:
        """Of each axis by itself."""
        return _medians(self.spacings_um)


def facts_of(case: Case, labels: int) -> CaseFacts:
    """What one decoded case adds to the fingerprint; ``labels`` counts the background."""
    shape = case.image.shape[1:]
    voxels = (0,) * labels
    foreground = np.empty((len(case.image), 0), dtype=np.float32)
    if case.label is not None:
        voxels = tuple(int(n) for n in np.bincount(case.label.ravel(), minlength=labels))
        places = np.flatnonzero(case.label)
        places = places[:: max(1, -(-places.size // _SAMPLES))]
        foreground = case.image.reshape(len(case.image), -1)[:, places]
    return CaseFacts(
        (shape[0], shape[1], shape[2]), case.spacing_um, _filled(case), foreground, voxels
    )


def _filled(case: Case) -> float:
    seen = case.image.any(axis=0)
    share = 1.0
    for axis in range(3):
        along = seen.any(axis=tuple(other for other in range(3) if other != axis))
        places = np.flatnonzero(along)
        if not places.size:
            return 1.0
        share *= (int(places[-1]) - int(places[0]) + 1) / along.size
    return share


def fingerprint_of(cases: Sequence[CaseFacts]) -> Fingerprint:
    """The fingerprint of at least one case."""
    samples = np.concatenate([case.foreground for case in cases], axis=1)
    return Fingerprint(
        tuple(case.shape for case in cases),
        tuple(case.spacing_um for case in cases),
        statistics.median(case.filled for case in cases),
        tuple(_window(channel) for channel in samples) if samples.size else (),
        tuple(sum(counts) for counts in zip(*(case.voxels for case in cases), strict=True)),
    )


def _window(samples: NDArray[np.float32]) -> Window:
    wide = samples.astype(np.float64)
    lower, upper = np.percentile(wide, (_LOWER, _UPPER))
    return Window(
        lower_milli=_milli(lower),
        upper_milli=_milli(upper),
        mean_milli=_milli(wide.mean()),
        deviation_milli=max(1, _milli(wide.std())),
    )


def _milli(value: float) -> int:
    bound = 2.0**53
    return int(min(bound, max(-bound, math.floor(value * 1000 + 0.5))))


def _medians(rows: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    x, y, z = (round(statistics.median(row[axis] for row in rows)) for axis in range(3))
    return x, y, z
