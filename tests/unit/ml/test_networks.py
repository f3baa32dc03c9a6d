from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_task import tiny_request, tiny_spec, write_tiny_set

from pouw.documents import Argument, Caps, Network
from pouw.errors import ModelError, ModelTooLarge
from pouw.ml.arguments import activation_bound, check, check_caps, check_patch, check_trainable
from pouw.ml.checkpoint import floating_state, load_model, save_model
from pouw.ml.networks import activation_bytes, build, names, parameter_count
from pouw.ml.training import Training

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
        (Network(name="unet", arguments={"spatial_dims": 2}), "Field required"),
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


def test_check_patch__a_single_site_and_groups_of_one_channel__is_refused() -> None:
    wide = unet(channels=(8, 8, 16))
    check_patch(wide, 3, (4, 4))
    with pytest.raises(ModelError, match="a single site"):
        check_patch(unet(), 3, (4, 4))


def test_activation_bytes__grow_with_the_patch() -> None:
    one = activation_bytes(unet(), 1, 3, (32, 32))
    assert one > 32 * 32 * 3 * 4  # more than the logits alone
    assert activation_bytes(unet(), 1, 3, (64, 32)) == 2 * one


def test_training__of_a_network_past_the_cap__is_refused(tmp_path: Path) -> None:
    data = write_tiny_set(tmp_path / "data")
    size = check(tiny_spec().network, 3).parameters(1, 3)
    for cap in (size, size - 1):
        caps = tiny_spec().caps.model_copy(update={"parameters": cap})
        out = tmp_path / str(cap)
        training = Training(
            tiny_request(data, out, spec=tiny_spec(caps=caps), max_steps=1), lambda: False
        )
        if cap == size:
            assert training.run().step == 1
        else:
            with pytest.raises(ModelTooLarge, match=f"the task allows {cap}"):
                training.run()


def test_names__list_the_registry() -> None:
    assert names() == ("dynunet", "fcn34", "segresnet", "unet", "unet3d-paper")


def every_kind() -> Iterator[tuple[str, dict[str, Argument], tuple[int, ...]]]:
    """Arguments and a patch for each network, with each norm and each number of axes."""
    for norm, groups in (("group", 2), ("instance", 1), ("batch", 1)):
        shared: dict[str, Argument] = {"norm": norm, "groups": groups}
        yield "fcn34", {**shared, "width": 8}, (32, 48)
        yield "unet3d-paper", {**shared, "width": 4}, (8, 16, 8)
        for dims in (2, 3):
            patch = (16,) * dims
            shared = {**shared, "spatial_dims": dims}
            residual = norm != "batch"
            flat = (1,) + (3,) * (dims - 1)
            yield (
                "dynunet",
                {
                    **shared,
                    "filters": (4, 4, 8),
                    "kernels": flat + (3,) * dims * 2,
                    "strides": (1,) * dims + (1,) + (2,) * (dims - 1) + (2,) * dims,
                    "residual": residual,
                },
                patch,
            )
            blocks: dict[str, Argument] = {"blocks_down": (1, 2, 2), "blocks_up": (1, 3)}
            yield "segresnet", {**shared, **blocks, "init_filters": 4}, patch
            for units in (0, 1, 3):
                for channels, strides in (
                    ((4, 8, 12), (2, 1)),
                    ((4, 4), (1,)),
                    ((8, 4, 4), (1, 2)),
                ):
                    shape: dict[str, Argument] = {"channels": channels, "strides": strides}
                    yield "unet", {**shared, **shape, "num_res_units": units}, patch


KINDS = [
    pytest.param(Network(name=name, arguments=arguments), patch, id=f"{name}-{number}")
    for number, (name, arguments, patch) in enumerate(every_kind())
]
ONE_OF_EACH = [
    next(kind for kind in KINDS if kind.values[0].name == name)  # type: ignore[union-attr]
    for name in ("dynunet", "fcn34", "segresnet", "unet", "unet3d-paper")
]


@pytest.mark.parametrize(("network", "patch"), KINDS)
def test_arguments__without_torch__know_the_size_of_the_network(
    network: Network, patch: tuple[int, ...]
) -> None:
    arguments = check(network, 4)
    model = build(network, 3, 4, parameters_cap=10**9)
    assert arguments.parameters(3, 4) == parameter_count(model)
    counted = activation_bytes(network, 3, 4, patch)
    assert counted <= activation_bound(arguments, 3, 4, patch) <= 3 * counted


@pytest.mark.parametrize(("network", "patch"), ONE_OF_EACH)
def test_build__of_every_network__maps_its_smallest_patch_to_labels(
    network: Network, patch: tuple[int, ...]
) -> None:
    smallest = check(network, 4).divisors
    assert all(size % divisor == 0 for size, divisor in zip(patch, smallest, strict=True))
    model = build(network, 3, 4, parameters_cap=10**9)
    assert model(torch.zeros((2, 3, *smallest))).shape == (2, 4, *smallest)


@pytest.mark.parametrize(("network", "patch"), ONE_OF_EACH)
def test_model__of_every_network__survives_its_file(
    network: Network, patch: tuple[int, ...], tmp_path: Path
) -> None:
    model = build(network, 3, 4, parameters_cap=10**9).train()
    model(torch.randn((2, 3, *patch)))  # moves what a batch norm remembers
    save_model(tmp_path / "model", model)
    size = parameter_count(model)
    caps = Caps(model_bytes=1 << 24, parameters=size, activation_bytes=1 << 30)
    loaded = load_model(tmp_path / "model", network, 3, 4, caps)
    assert set(floating_state(loaded)) == set(floating_state(model))
    image = torch.randn((1, 3, *patch))
    with torch.no_grad():
        assert torch.equal(loaded(image), model.eval()(image))
    smaller = caps.model_copy(update={"parameters": size - 1})
    with pytest.raises(ModelTooLarge, match=f"{size} parameters"):
        load_model(tmp_path / "model", network, 3, 4, smaller)


def test_fcn34__from_image_to_logits__has_34_convolutions() -> None:
    model = build(fcn34(), 3, 2, parameters_cap=10**9)
    convolutions = [name for name, one in model.named_modules() if isinstance(one, torch.nn.Conv2d)]
    beside = [name for name in convolutions if "shortcut" in name or "laterals" in name]
    lateral = 1  # a scale's own; the longest way takes one
    assert len(convolutions) - len(beside) + lateral == 34


def test_fcn34__merges_every_scale() -> None:
    model = build(fcn34(), 3, 2, parameters_cap=10**9).eval()
    image = torch.randn((1, 3, 32, 32))
    for scale in range(5):
        seen: list[torch.Tensor] = []
        lateral = model.get_submodule(f"laterals.{scale}")
        hook = lateral.register_forward_hook(lambda *a, seen=seen: seen.append(a[2]))
        logits = model(image)
        hook.remove()
        (gradient,) = torch.autograd.grad(logits.sum(), seen[0])
        assert seen[0].shape == (1, 8, 32, 32)
        assert bool(gradient.any())


def test_unet3d_paper__as_published__has_the_published_parameters() -> None:
    network = Network(name="unet3d-paper", arguments={"width": 32, "norm": "batch"})
    with torch.device("meta"):
        model = build(network, 3, 3, parameters_cap=10**9)
    kinds = (torch.nn.Conv3d, torch.nn.ConvTranspose3d)
    weights = (p for one in model.modules() if isinstance(one, kinds) for p in one.parameters())
    assert sum(p.numel() for p in weights) == 19_069_955


def fcn34(**changes: Argument) -> Network:
    return Network(name="fcn34", arguments={"width": 8, "norm": "batch", **changes})


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (fcn34(width=6), "width: Input should be a multiple of 4"),
        (fcn34(width=256), "width"),
        (fcn34(depth=50), "depth: Extra inputs"),
        (fcn34(norm="group", groups=4), "multiples of groups"),
        (Network(name="unet3d-paper", arguments={"width": 65, "norm": "batch"}), "width"),
        (Network(name="unet3d-paper", arguments={"width": 8}), "norm: Field required"),
        (Network(name="segresnet", arguments={"spatial_dims": 2}), "Field required"),
    ],
)
def test_check__of_a_paper_network_out_of_bounds__says_what_is_allowed(
    network: Network, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        check(network, 3)
    assert caught.value.hint


def dynunet(**changes: Argument) -> Network:
    arguments: dict[str, Argument] = {
        "spatial_dims": 3,
        "filters": (4, 8, 16),
        "kernels": (3, 3, 1) + (3,) * 6,
        "strides": (1, 1, 1, 2, 2, 1, 2, 2, 2),
        "residual": False,
        "norm": "instance",
    }
    return Network(name="dynunet", arguments={**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": (2,) * 9}, "first level has stride 1"),
        ({"strides": (1, 1, 1, 2, 2, 1, 4, 2, 2)}, "strides.6"),
        ({"kernels": (3,) * 6}, "9 entries"),
        ({"kernels": (5,) * 9}, "kernels.0"),
        ({"filters": (4, 8)}, "filters"),
        ({"deep_supervision": True}, "deep_supervision: Extra inputs"),
    ],
)
def test_check__of_a_dynunet_out_of_bounds__names_the_argument(
    changes: dict[str, Argument], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        check(dynunet(**changes), 3)


def test_check_patch__for_an_anisotropic_network__has_a_divisor_an_axis() -> None:
    check_patch(dynunet(), 3, (8, 4, 2))
    with pytest.raises(ModelError) as caught:
        check_patch(dynunet(), 3, (8, 6, 2))
    assert caught.value.hint == "the axes must be multiples of (4, 4, 2)"


def test_check_patch__that_leaves_one_site_to_normalise__is_refused() -> None:
    with pytest.raises(ModelError, match="a single site"):
        check_patch(dynunet(), 3, (4, 4, 2))
    check_patch(dynunet(norm="group", groups=2), 3, (4, 4, 2))


@pytest.mark.parametrize(
    ("cap", "message"),
    [("parameters", "parameters"), ("model_bytes", "models of"), ("activation_bytes", "patch of")],
)
def test_check_caps__of_a_network_past_its_own_caps__names_the_cap(cap: str, message: str) -> None:
    size = check(unet(), 3).parameters(1, 3)
    bound = activation_bound(check(unet(), 3), 1, 3, (16, 16))
    caps = Caps(parameters=size, model_bytes=4 * size, activation_bytes=bound)
    check_caps(unet(), 1, 3, (16, 16), caps)
    with pytest.raises(ModelTooLarge, match=message):
        check_caps(unet(), 1, 3, (16, 16), caps.model_copy(update={cap: getattr(caps, cap) - 1}))


def test_check_trainable__memory_or_caps_a_byte_short__says_which() -> None:
    size = check(tiny_spec().network, 3).parameters(1, 3)
    caps = Caps(parameters=size, model_bytes=2 * size, activation_bytes=1)
    memory = 16 * size  # weights, their average and two moments
    check_trainable(tiny_spec(caps=caps), memory)
    with pytest.raises(ModelTooLarge, match="this machine has"):
        check_trainable(tiny_spec(caps=caps), memory - 1)
    for cap in ("parameters", "model_bytes"):
        short = caps.model_copy(update={cap: getattr(caps, cap) - 1})
        with pytest.raises(ModelTooLarge, match="the task allows"):
            check_trainable(tiny_spec(caps=short), memory)


def test_publishers_modules__start_without_torch() -> None:
    code = (
        "import sys, pouw.ml.data, pouw.ml.dice, pouw.ml.recipe, pouw.ml.brain, pouw.ml.arguments;"
        "sys.exit(any(m.split('.')[0] in ('torch', 'monai', 'nilearn') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
