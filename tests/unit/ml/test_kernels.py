from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pouw.documents import Network
from pouw.ml.kernels import ChannelsLastNorm, SharedPReLU, laid_out, quicken
from pouw.ml.networks import build

EPSILON = 1e-5
Weights = tuple[nn.Parameter | None, nn.Parameter | None]
Norm = Callable[[Tensor, Weights], Tensor]


def layout_of(images: Tensor) -> torch.memory_format:
    return torch.channels_last if images.dim() == 4 else torch.channels_last_3d


def with_gradients(norm: Norm, images: Tensor, weights: Weights, gradient: Tensor) -> list[Tensor]:
    wanted = [one for one in (images, *weights) if one is not None]
    output = norm(images, weights)
    return [output.detach(), *torch.autograd.grad(output, wanted, gradient)]


def deviations(found: list[Tensor], reference: list[Tensor]) -> list[float]:
    return [
        float((one.double() - true).norm() / true.norm())
        for one, true in zip(found, reference, strict=True)
    ]


@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((3, 8, 96, 96), 4),  # torch is slow both ways
        ((2, 16, 64, 64), 4),  # only back
        ((1, 8, 32, 32, 16), 4),
        ((2, 24, 41, 43), 3),  # no two pixels can be taken together
        ((2, 16, 64, 64), 16),  # instance normalisation
        ((2, 16, 8, 8), 4),  # small
        ((1, 64, 32, 32), 4),  # wide groups
    ],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("learnt", [True, False])
@pytest.mark.parametrize("mean", [0.5, 30.0])
def test_channels_last_norm__against_float64__no_worse_than_torch(
    shape: tuple[int, ...], groups: int, dtype: torch.dtype, learnt: bool, mean: float
) -> None:
    random = torch.Generator().manual_seed(1)
    images, gradient = (torch.randn(shape, generator=random) for _ in range(2))
    images, gradient = (images + mean).to(dtype), (gradient + 0.1).to(dtype)
    weights = (torch.rand(shape[1], generator=random), torch.randn(shape[1], generator=random))

    def norm(images: Tensor, weights: Weights) -> Tensor:
        return functional.group_norm(images, groups, *weights, EPSILON)

    def quick(images: Tensor, weights: Weights) -> Tensor:
        output: Tensor = ChannelsLastNorm(*weights, groups, EPSILON)(images)
        return output

    def ran(norm: Norm, dtype: torch.dtype, layout: torch.memory_format) -> list[Tensor]:
        inputs = laid_out(images.to(dtype), layout).requires_grad_()
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        weight, bias = (nn.Parameter(one.to(exact)) if learnt else None for one in weights)
        return with_gradients(norm, inputs, (weight, bias), laid_out(gradient.to(dtype), layout))

    layout = layout_of(images)
    reference = ran(norm, torch.float64, torch.contiguous_format)
    found = ran(quick, dtype, layout)
    assert [one.dtype for one in found[:2]] == [dtype] * 2
    assert all(one.is_contiguous(memory_format=layout) for one in found[:2])
    # Going back, three factors are rounded to bfloat16 that torch keeps in float32.
    plain = deviations(ran(norm, dtype, layout), reference)
    for mine, theirs in zip(deviations(found, reference), plain, strict=True):
        assert mine <= 1.6 * theirs + 1e-6


def test_channels_last_norm__gradient_in_slices__is_taken_as_it_is_meant() -> None:
    images = laid_out(torch.randn((2, 8, 96, 96)).bfloat16(), torch.channels_last).requires_grad_()
    layer = ChannelsLastNorm(nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8)), 4, EPSILON)
    both = laid_out(torch.randn((2, 16, 96, 96)).bfloat16(), torch.channels_last)
    whole = torch.autograd.grad(layer(images), images, laid_out(both[:, 8:], torch.channels_last))
    sliced = torch.autograd.grad(layer(images), images, both[:, 8:])
    assert torch.equal(whole[0], sliced[0])


@pytest.mark.parametrize(
    ("shape", "kernel"), [((4, 1, 32, 32), (8, 1, 3, 3)), ((4, 8, 32, 32), (4, 8, 1, 1))]
)
def test_laid_out__where_one_channel_leaves_it_open__convolution_follows(
    shape: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    images, weights = torch.randn(shape), torch.randn(kernel)
    layout = torch.channels_last
    output = functional.conv2d(laid_out(images, layout), laid_out(weights, layout))
    assert output.is_contiguous(memory_format=layout)
    torch.testing.assert_close(output, functional.conv2d(images, weights))


@pytest.mark.parametrize(
    "network",
    [
        Network(name="fcn34", arguments={"width": 16, "norm": "instance"}),
        Network(name="fcn34", arguments={"width": 16, "norm": "batch"}),
        Network(
            name="unet",
            arguments={
                "spatial_dims": 2,
                "channels": (16, 32),
                "strides": (2,),
                "num_res_units": 1,
                "norm": "group",
                "groups": 4,
            },
        ),
    ],
    ids=lambda network: f"{network.name}-{network.arguments['norm']}",
)
def test_quicken__whole_network__same_values_in_one_layout(network: Network) -> None:
    torch.manual_seed(1)
    plain, quick = (build(network, 1, 4, parameters_cap=10**8).double() for _ in range(2))
    quick.load_state_dict(plain.state_dict())
    for parameter in quick.parameters():
        if parameter.dim() == 4:
            parameter.data = laid_out(parameter.data, torch.channels_last)
    quicken(quick, torch.channels_last)
    assert list(quick.state_dict()) == list(plain.state_dict())

    strays: list[str] = []

    def look(module: nn.Module, _inputs: object, output: Tensor) -> None:
        if not output.is_contiguous(memory_format=torch.channels_last):
            strays.append(type(module).__name__)

    for module in quick.modules():
        module.register_forward_hook(look)
    images = torch.randn((2, 1, 64, 64), dtype=torch.float64)
    outputs = [plain(images), quick(laid_out(images, torch.channels_last))]
    assert strays == []
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().mean().backward()
    for one, other in zip(plain.parameters(), quick.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_quicken__prelu_of_one_slope__same_values_and_names() -> None:
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(), nn.PReLU(4))
    quick = nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(), nn.PReLU(4))
    quick.load_state_dict(plain.state_dict())
    quicken(quick, torch.contiguous_format)
    assert isinstance(quick[1], SharedPReLU)
    assert type(quick[2]) is nn.PReLU
    assert list(quick.state_dict()) == list(plain.state_dict())
    images = torch.randn((2, 1, 32, 32))
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    outputs = [network(one) for network, one in zip((plain, quick), inputs, strict=True)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=0)
    torch.testing.assert_close(plain[1].weight.grad, quick[1].weight.grad)
