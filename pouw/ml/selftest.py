"""Are a network's convolutions in bfloat16, on this machine, those of float32?

Some builds compute them wrongly, or only some shapes of them, so every convolution of the network
is run both ways on its own shapes: outputs and both gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# bfloat16 keeps 8 bits: roundings of inputs, weights and result leave about 0.4 % of the norm.
MAX_ERROR_PPM = 20_000

Convolution = (
    nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
)


def convolution_fault(network: nn.Module, images: Tensor) -> str | None:
    """What is wrong with bfloat16 convolutions of ``network`` on ``images`` (B, C, *patch).

    None where every output and gradient is finite and within ``MAX_ERROR_PPM`` of its float32
    counterpart's norm. Weights and layout are the network's own, values random.
    """
    shapes: dict[str, tuple[Convolution, Tensor]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, Convolution)
        shapes.setdefault(f"{module} on {tuple(inputs[0].shape)}", (module, inputs[0].detach()))

    hooks = [
        module.register_forward_hook(note)
        for module in network.modules()
        if isinstance(module, Convolution)
    ]
    with torch.no_grad():
        network.forward(images)  # not the call, which a compiler may have taken over
    for hook in hooks:
        hook.remove()
    generator = torch.Generator(images.device).manual_seed(0)
    for name, (module, like) in shapes.items():
        values = torch.empty_like(like).normal_(generator=generator)
        error_ppm = _error_ppm(module, values, generator)
        if not error_ppm <= MAX_ERROR_PPM:
            return f"{name}: off by {error_ppm:.0f} ppm"
    return None


def _error_ppm(module: Convolution, values: Tensor, generator: torch.Generator) -> float:
    """The largest relative error of outputs and gradients; NaN where one is not finite."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    inputs = values.requires_grad_()
    exact = module(inputs)
    pull = torch.empty_like(exact).normal_(generator=generator)
    expected = (exact, *torch.autograd.grad(exact, (inputs, *parameters), pull))
    with torch.autocast(values.device.type, torch.bfloat16):
        rough = module(inputs)
    found = (rough, *torch.autograd.grad(rough, (inputs, *parameters), pull.to(rough.dtype)))
    errors = torch.stack(
        [
            (one.float() - other).norm() / other.norm().clamp_min(1e-12)
            for one, other in zip(found, expected, strict=True)
        ]
    )
    return float(errors.max().detach()) * 1e6
