from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.inferers.utils import sliding_window_inference
from tiny_task import tiny_spec
from torch import nn

from pouw.documents import TaskSpec
from pouw.errors import DataError, ModelError, ModelTooLarge
from pouw.ml.data import Case, resample_label
from pouw.ml.inference import (
    predict,
    predict_case,
    predict_stored,
    prepare,
    window_count,
    windows_at_once,
)
from pouw.ml.networks import build
from pouw.ml.windows import highest_label


class Threshold(nn.Module):
    """Logits of three labels straight from the intensity: background, above 1, below -1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(image.shape))
        return torch.cat([torch.ones_like(image), image, -image], dim=1) * self.scale


def with_recipe(spec: TaskSpec, **changes: object) -> TaskSpec:
    return spec.model_copy(update={"inference": spec.inference.model_copy(update=changes)})


def image(shape: tuple[int, ...] = (1, 24, 20, 8)) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(1))
    return random.normal(0, 2, shape).astype(np.float32)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("blending", ["gaussian", "constant"])
@pytest.mark.parametrize("shape", [(1, 24, 20, 8), (1, 7, 33, 3), (1, 1, 1, 1)])
def test_predict__pointwise_network__labels_every_voxel_once(
    spatial_dims: int, blending: str, shape: tuple[int, ...]
) -> None:
    volume = image(shape)
    labels = predict(Threshold(), volume, with_recipe(tiny_spec(spatial_dims), blending=blending))
    expected = np.where(volume[0] > 1, 1, np.where(volume[0] < -1, 2, 0))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)


def test_predict__ties__go_to_the_lowest_label() -> None:
    flat = np.ones((1, 16, 16, 2), dtype=np.float32)
    assert not predict(Threshold(), flat, tiny_spec()).any()
    np.testing.assert_array_equal(predict(Threshold(), -flat, tiny_spec()), 0)


def test_predict__2d__sees_slices_along_the_last_axis() -> None:
    network = Threshold()
    predict(network, image((1, 16, 16, 5)), tiny_spec())
    assert sum(shape[0] for shape in network.shapes) == 5
    assert {shape[1:] for shape in network.shapes} == {(1, 16, 16)}


def test_predict__twice__the_same_labels() -> None:
    torch.manual_seed(0)
    spec = tiny_spec(3)
    network = build(spec.network, 1, 3, parameters_cap=100_000).eval()
    first = predict(network, image(), spec)
    np.testing.assert_array_equal(first, predict(network, image(), spec))
    assert len(np.unique(first)) > 1


def test_predict__output_not_finite__raises() -> None:
    network = Threshold()
    with torch.no_grad():
        network.scale.fill_(torch.finfo(torch.float32).max)
    with pytest.raises(ModelError, match="not finite"):
        predict(network, image(), tiny_spec())


def test_windows_at_once__activation_cap__bounds_the_batch_and_refuses_a_single_window() -> None:
    spec = tiny_spec()
    many = windows_at_once(spec)
    assert many > 1
    caps = spec.caps.model_copy(update={"activation_bytes": spec.caps.activation_bytes // 2**20})
    with pytest.raises(ModelTooLarge, match="activations"):
        windows_at_once(spec.model_copy(update={"caps": caps}))
    network = Threshold()
    predict(network, image((1, 16, 16, 40)), spec)
    assert max(shape[0] for shape in network.shapes) == many


def test_predict_case__other_spacing__answers_on_the_stored_grid() -> None:
    random = np.random.Generator(np.random.Philox(2))
    # Signs by quadrant and slice: averaging over neighbours in plane cannot turn one.
    quadrants = np.where(np.arange(12) < 5, 1, -1)[:, None] * np.where(np.arange(10) < 6, 1, -1)
    slices = random.choice([-3.0, 0.0, 3.0], 8)
    coarse = (quadrants[..., None] * slices)[np.newaxis].astype(np.float32)
    fine = coarse.repeat(2, axis=1).repeat(2, axis=2)
    case = Case("a", fine, None, (500, 500, 1000))
    spec = with_recipe(tiny_spec(), spacing_um=(1000, 1000, 1000), normalisation="none")
    assert prepare(case, spec).shape == coarse.shape
    labels = predict_case(Threshold(), case, spec)
    np.testing.assert_array_equal(labels, np.where(fine > 0, 1, np.where(fine < 0, 2, 0))[0])


def test_prepare__other_number_of_channels__raises() -> None:
    case = Case("two", image((2, 4, 4, 4)), None, (1000, 1000, 1000))
    with pytest.raises(DataError, match="2 channel"):
        prepare(case, tiny_spec())


@pytest.mark.parametrize(("spatial_dims", "shape"), [(2, (1, 41, 37, 5)), (3, (1, 41, 21, 19))])
@pytest.mark.parametrize("blending", ["gaussian", "constant"])
def test_predict__of_a_network__agrees_with_monai_but_for_ties(
    spatial_dims: int, shape: tuple[int, ...], blending: str
) -> None:
    torch.manual_seed(0)
    spec = with_recipe(tiny_spec(spatial_dims), blending=blending, overlap_ppm=500_000)
    network = build(spec.network, 1, 3, parameters_cap=100_000).eval()
    volume = image(shape)
    batch = np.moveaxis(volume, -1, 0) if spatial_dims == 2 else volume[np.newaxis]
    with torch.no_grad():
        logits = sliding_window_inference(
            torch.from_numpy(batch.copy()), spec.inference.patch, 4, network, 0.5, blending
        )
    expected = logits.argmax(dim=1).numpy()
    expected = np.moveaxis(expected, 0, -1) if spatial_dims == 2 else expected[0]
    best = logits.topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1] > 1e-5).numpy()
    clear = np.moveaxis(clear, 0, -1) if spatial_dims == 2 else clear[0]
    labels = predict(network, volume, spec)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], expected[clear])


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("stored", [(41, 21, 19), (20, 30, 40), (90, 7, 1)])
def test_predict_stored__slab_by_slab__is_the_whole_prediction_on_the_stored_grid(
    spatial_dims: int, stored: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    spec = tiny_spec(spatial_dims)
    network = build(spec.network, 1, 3, parameters_cap=100_000).eval()
    volume = image((1, 41, 21, 19))
    labels = np.full(stored, 255, dtype=np.uint8)
    reached = 0
    for slab in predict_stored(network, volume, spec, stored):
        assert slab.start == reached
        reached = slab.stop
        labels[slab.where] = slab.labels
    assert reached == stored[2 if spatial_dims == 2 else 0]
    np.testing.assert_array_equal(labels, resample_label(predict(network, volume, spec), stored))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_window_count__says_how_many_windows_go_through_the_network(spatial_dims: int) -> None:
    network, spec = Threshold(), tiny_spec(spatial_dims)
    predict(network, image((1, 41, 21, 19)), spec)
    assert sum(shape[0] for shape in network.shapes) == window_count((41, 21, 19), spec)


@given(arrays(np.float32, (5, 3, 4), elements=st.sampled_from([-2.0, -0.0, 0.0, 0.5, 2.0**127])))
def test_highest_label__of_any_sums__is_the_first_maximum(sums: np.ndarray) -> None:
    expected = sums.argmax(axis=0)
    np.testing.assert_array_equal(highest_label(torch.from_numpy(sums)).numpy(), expected)
