"""Which patches a training step sees: a function of the seed and the step, and of nothing else.

Every step of every process has a generator of its own, seeded by sha256(seed, step, rank), so a
stranger can repeat any step without the ones before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pouw.errors import DataError
from pouw.hashing import sha256
from pouw.ml.data import Image, Label
from pouw.ml.requests import TrainingSettings
from pouw.types import SCORE_ONE_PPM

_ANCHORS_PER_LABEL = 1024
# Small batches learn most a second on one CPU thread.
_VOXELS_PER_STEP = 40_000


@dataclass(frozen=True, slots=True)
class Item:
    """What patches are cut from: a slice (C, X, Y) or a volume (C, X, Y, Z) and its labels.

    ``anchors``: per foreground label that occurs, up to 1,024 of its voxels as flat indices.
    """

    image: Image
    label: Label
    anchors: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one process sees in one step.

    ``images`` (B, C, *patch) and ``labels`` (B, 1, *patch) are cut and mirrored, not yet shaded.
    ``shades`` (B, 3 + axes), uniform in [-1, 1): gain, offset, a ramp for every axis, and, taken
    absolutely, noise. ``seed`` fixes the noise and whatever a network draws itself.
    """

    step: int
    images: Image
    labels: Label
    shades: NDArray[np.float32]
    seed: int


def step_digest(seed: bytes, step: int, rank: int = 0) -> bytes:
    """What all random choices of one process in one step follow from."""
    return sha256(seed + step.to_bytes(8, "big") + rank.to_bytes(4, "big"))


def items_of(image: Image, label: Label, patch: Sequence[int]) -> list[Item]:
    """The items of a prepared case: its slices along the last axis for a 2D patch, else itself.

    ``image`` is (C, X, Y, Z), ``label`` (X, Y, Z); both are padded with zeros to the patch.
    """
    if len(patch) == 3:
        return [_item(image, label, patch)]
    return [_item(image[..., z], label[..., z], patch) for z in range(label.shape[-1])]


def _item(image: Image, label: Label, patch: Sequence[int]) -> Item:
    missing = [max(0, size - have) for size, have in zip(patch, label.shape, strict=True)]
    before_after = [(gap // 2, gap - gap // 2) for gap in missing]
    label = np.ascontiguousarray(np.pad(label, before_after))
    image = np.ascontiguousarray(np.pad(image, [(0, 0), *before_after]), dtype=np.float32)
    anchors = []
    for value in np.unique(label)[np.unique(label) > 0]:
        voxels = np.flatnonzero(label == value)
        anchors.append(voxels[:: -(-voxels.size // _ANCHORS_PER_LABEL)])
    return Item(image, label, tuple(anchors))


class PatchSampler:
    """Batches of patches from items, by step."""

    def __init__(
        self, items: Sequence[Item], patch: Sequence[int], seed: bytes, settings: TrainingSettings
    ) -> None:
        if not items:
            raise DataError("there is nothing to train on")
        self._items = items
        self._patch = tuple(patch)
        self._seed = seed
        self._settings = settings
        automatic = max(1, round(_VOXELS_PER_STEP / math.prod(patch)))
        self.batch_size = settings.batch_size or automatic

    def batch(self, step: int, rank: int = 0) -> Batch:
        """What the process of that rank sees in a step."""
        digest = step_digest(self._seed, step, rank)
        random = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))
        pairs = [self._draw(random) for _ in range(self.batch_size)]
        shape = (self.batch_size, 3 + len(self._patch))
        return Batch(
            step=step,
            images=np.stack([image for image, _ in pairs]),
            labels=np.stack([label for _, label in pairs])[:, np.newaxis],
            shades=random.uniform(-1, 1, shape).astype(np.float32),
            seed=int.from_bytes(digest[16:24], "big") >> 1,
        )

    def _draw(self, random: np.random.Generator) -> tuple[Image, Label]:
        item = self._items[int(random.integers(len(self._items)))]
        centre = None
        if item.anchors and random.random() * SCORE_ONE_PPM < self._settings.foreground_ppm:
            voxels = item.anchors[int(random.integers(len(item.anchors)))]
            flat = voxels[int(random.integers(len(voxels)))]
            centre = [int(index) for index in np.unravel_index(flat, item.label.shape)]
        window: list[slice] = []
        for axis, (size, have) in enumerate(zip(self._patch, item.label.shape, strict=True)):
            start = int(random.integers(have - size + 1))
            if centre is not None:
                start = min(max(centre[axis] - size // 2, 0), have - size)
            window.append(slice(start, start + size))
        image, label = item.image[(slice(None), *window)], item.label[tuple(window)]
        if self._settings.flips:
            axes = [axis for axis in range(label.ndim) if random.random() < 0.5]
            label = np.flip(label, axes)
            image = np.flip(image, [axis + 1 for axis in axes])
        return image, label
