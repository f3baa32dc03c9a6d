from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from pouw.documents import Argument, Network
from pouw.errors import ModelError
from pouw.ml.arguments import activation_bound, check, check_patch
from pouw.ml.networks import activation_bytes, build, names, parameter_count

SMALL: dict[str, Argument] = {
    "spatial_dims": 2,
    "channels": (4, 8, 16),
    "strides": (2, 2),
    "num_res_units": 0,
    "norm": "group",
    "groups": 4,
}


def unet(**changes: Argument) -> Network:
    return Network(name="unet", arguments={**SMALL, **changes})


@pytest.mark.parametrize("norm", ["group", "instance", "batch"])
@pytest.mark.parametrize("units", [0, 2])
@pytest.mark.parametrize("dims", [2, 3])
def test_build__of_every_kind_of_unet__maps_images_to_labels(
    norm: str, units: int, dims: int
) -> None:
    groups = 2 if norm == "group" else 1
    network = unet(spatial_dims=dims, norm=norm, num_res_units=units, groups=groups)
    model = build(network, 2, 4, parameters_cap=1_000_000)
    images = torch.zeros((1, 2, *(8,) * dims))
    assert model(images).shape == (1, 4, *(8,) * dims)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    norms = {type(module).__name__.lower() for module in model.modules()}
    assert any(name.startswith(norm) for name in norms)


def test_build__after_the_same_seed__has_the_same_weights() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(build(unet(), 1, 3, parameters_cap=1_000_000))
    first, second = (list(model.parameters()) for model in models)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_build__above_the_cap__is_refused_before_it_costs_memory() -> None:
    huge = unet(spatial_dims=3, channels=(1024,) * 8, strides=(1,) * 7, num_res_units=4, groups=1)
    started = time.monotonic()
    with pytest.raises(ModelError, match="parameters, the task allows 1000000"):
        build(huge, 1, 2, parameters_cap=1_000_000)
    assert time.monotonic() - started < 10  # six billion float32 would take far longer


def test_build__at_the_cap__is_built() -> None:
    size = parameter_count(build(unet(), 1, 3, parameters_cap=1_000_000))
    assert parameter_count(build(unet(), 1, 3, parameters_cap=size)) == size
    with pytest.raises(ModelError):
        build(unet(), 1, 3, parameters_cap=size - 1)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Network(name="resnet", arguments=SMALL), "no network 'resnet'"),
        (unet(dropout=1), "dropout: Extra inputs"),
        (unet(spatial_dims=4), "spatial_dims"),
        (unet(channels=(4, 8, 2048)), "channels.2"),
        (unet(strides=(2, 2, 2)), "one entry less"),
        (unet(strides=(2, 0)), "strides.1"),
        (unet(norm="layer"), "norm"),
        (unet(groups=3), "multiples of groups"),
        (unet(norm="batch"), "groups belongs to the group norm"),
        (unet(num_res_units=1), "3 labels are no multiple of 4 groups"),
        (Network(name="unet", arguments={"spatial_dims": 2}), "channels: Field required"),
        (unet(num_res_units=True), "num_res_units"),
    ],
)
def test_check__of_a_network_outside_the_registry__says_what_is_allowed(
    network: Network, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        check(network, 3)
    assert caught.value.hint


def test_check_patch__that_is_no_multiple_of_the_stride__names_the_stride() -> None:
    check_patch(unet(), 3, (8, 12))
    with pytest.raises(ModelError) as caught:
        check_patch(unet(), 3, (8, 10))
    assert caught.value.hint == "every axis must be a multiple of 4"
    with pytest.raises(ModelError, match="2D network"):
        check_patch(unet(), 3, (8, 8, 8))


@pytest.mark.parametrize("units", [0, 1, 4])
@pytest.mark.parametrize(
    ("channels", "strides"), [((4, 8), (1,)), ((4, 4, 64), (4, 2)), ((64, 4, 4), (1, 2))]
)
@pytest.mark.parametrize(("inputs", "labels"), [(1, 2), (16, 3), (1, 200)])
def test_activation_bound__without_torch__is_never_below_what_layers_hold(
    units: int, channels: tuple[int, ...], strides: tuple[int, ...], inputs: int, labels: int
) -> None:
    network = unet(
        channels=channels, strides=strides, num_res_units=units, norm="instance", groups=1
    )
    counted = activation_bytes(network, inputs, labels, (32, 32))
    bound = activation_bound(check(network, labels), inputs, labels, (32, 32))
    assert counted <= bound <= 8 * counted


def test_activation_bytes__grow_with_the_patch() -> None:
    one = activation_bytes(unet(), 1, 3, (32, 32))
    assert one > 32 * 32 * 3 * 4  # more than the logits alone
    assert activation_bytes(unet(), 1, 3, (64, 32)) == 2 * one


def test_names__list_the_registry() -> None:
    assert names() == ("unet",)


def test_publishers_modules__start_without_torch() -> None:
    code = (
        "import sys, pouw.ml.data, pouw.ml.dice, pouw.ml.recipe, pouw.ml.brain, pouw.ml.arguments;"
        "sys.exit(any(m.split('.')[0] in ('torch', 'monai', 'nilearn') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
