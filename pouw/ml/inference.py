"""From an image to labels: one fixed recipe in float32, whoever runs it.

Everything that influences a number follows from the spec and the shape of the image: windows,
their weights, and how many windows go through the network at once.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch import nn

from pouw.documents import InferenceRecipe, TaskSpec
from pouw.errors import DataError, ModelError, ModelTooLarge
from pouw.ml.data import (
    Case,
    Image,
    Label,
    normalise,
    resample_image,
    resample_label,
    resampled_shape,
)
from pouw.ml.networks import activation_bytes
from pouw.types import SCORE_ONE_PPM

_MAX_WINDOWS_AT_ONCE = 8
_STITCHED_BYTES = 256 << 20


def prepare(case: Case, spec: TaskSpec) -> Image:
    """The case's image (C, X, Y, Z) as a network sees it: normalised, then resampled.

    DataError where it has not the channels of the spec.
    """
    if case.image.shape[0] != len(spec.channels):
        raise DataError(
            f"case {case.name} has {case.image.shape[0]} channel(s), the spec {len(spec.channels)}"
        )
    image = normalise(case.image, spec.inference)
    if not spec.inference.spacing_um:
        return image
    return resample_image(image, _target_shape(case, spec.inference))


def prepare_label(case: Case, spec: TaskSpec) -> Label:
    """The case's label (X, Y, Z) on the grid of ``prepare``; DataError where it has none."""
    if case.label is None:
        raise DataError(f"case {case.name} has no label")
    if not spec.inference.spacing_um:
        return case.label
    return resample_label(case.label, _target_shape(case, spec.inference))


def _target_shape(case: Case, recipe: InferenceRecipe) -> tuple[int, int, int]:
    _, x, y, z = case.image.shape
    spacing = recipe.spacing_um
    return resampled_shape((x, y, z), case.spacing_um, (spacing[0], spacing[1], spacing[2]))


def windows_at_once(spec: TaskSpec) -> int:
    """How many windows go through the network together, within the spec's activation cap.

    ModelTooLarge where a single one passes it.
    """
    single = activation_bytes(
        spec.network, len(spec.channels), len(spec.labels), spec.inference.patch
    )
    if single > spec.caps.activation_bytes:
        raise ModelTooLarge(
            f"one window takes {single} bytes of activations, "
            f"the task allows {spec.caps.activation_bytes}"
        )
    return min(spec.caps.activation_bytes // single, _MAX_WINDOWS_AT_ONCE)


def predict(network: nn.Module, image: Image, spec: TaskSpec) -> Label:
    """Labels (X, Y, Z) of a prepared image (C, X, Y, Z), on its own grid.

    Overlapping windows are blended and ties go to the lowest label; an image smaller than a window
    is padded with zeros around it. Runs where the network is. ModelError where the network's output
    is not finite, ModelTooLarge where a window passes the caps.
    """
    together = windows_at_once(spec)
    if spec.spatial_dims == 3:
        return np.ascontiguousarray(_labels(network, image[np.newaxis], spec, together)[0])
    slices = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    count, _, width, height = slices.shape
    size = max(1, _STITCHED_BYTES // (len(spec.labels) * width * height * 4))
    labels = np.empty((count, width, height), dtype=np.uint8)
    for start in range(0, count, size):
        labels[start : start + size] = _labels(
            network, slices[start : start + size], spec, together
        )
    return np.ascontiguousarray(np.moveaxis(labels, 0, -1))


def predict_case(network: nn.Module, case: Case, spec: TaskSpec) -> Label:
    """Labels (X, Y, Z) of a case on the grid it is stored on; errors as in ``predict``."""
    labels = predict(network, prepare(case, spec), spec)
    _, x, y, z = case.image.shape
    return to_stored_grid(labels, (x, y, z))


def to_stored_grid(labels: Label, shape: tuple[int, int, int]) -> Label:
    """A prediction on the recipe's grid, brought back to the case's grid of ``shape``."""
    return resample_label(labels, shape)


@torch.inference_mode()
def _labels(network: nn.Module, batch: Image, spec: TaskSpec, together: int) -> Label:
    recipe = spec.inference
    device = next(network.parameters()).device
    logits = sliding_window_inference(
        torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).to(device),
        recipe.patch,
        together,
        network,
        overlap=recipe.overlap_ppm / SCORE_ONE_PPM,
        mode=recipe.blending,
    )
    assert isinstance(logits, torch.Tensor)
    if not bool(torch.isfinite(logits).all()):
        raise ModelError("the network's output is not finite")
    # argmax gives the first of equal maxima, which is the lowest label.
    return np.asarray(logits.argmax(dim=1).to(torch.uint8).cpu().numpy())
