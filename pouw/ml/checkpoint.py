"""Models and checkpoints on disk: safetensors only, written atomically, read with suspicion.

A model file holds the floating-point state of a network, in float32 or bfloat16. A checkpoint adds
the averaged weights, AdamW's moments and the schedule since the checkpoint before, and names that
checkpoint with its sha-256 in its metadata: checkpoints form a hash-linked chain (paper, 4.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from pouw.documents import Caps, Network
from pouw.errors import ModelError
from pouw.files import atomic_file
from pouw.hashing import sha256
from pouw.ml.networks import build
from pouw.ml.safefile import read_tensors
from pouw.types import SCORE_ONE_PPM

_MAX_CHECKPOINT_BYTES = 1 << 36
_MOMENTS = ("exp_avg", "exp_avg_sq")
_SCHEDULE = "schedule_ppm"
_HEADER_BYTES = 1024  # metadata, the schedule's entry and padding
_ENTRY_BYTES = 192  # of a tensor in the header, its name aside


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """What a checkpoint says beside the tensors.

    ``schedule_ppm``: for every step since the checkpoint before, the share of the budget that was
    over when it began; the learning rates follow from it. ``previous`` and ``previous_sha256``
    (hex) name the checkpoint before; both are empty for the first.
    """

    step: int
    loss_ppm: int
    schedule_ppm: tuple[int, ...]
    previous: str
    previous_sha256: str


def floating_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The floating-point entries of the network's state, by name, sharing its memory."""
    return {
        name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()
    }


def save_model(path: Path, network: nn.Module, dtype: torch.dtype = torch.float32) -> bytes:
    """Write the network's state to ``path`` in ``dtype``; returns the sha-256 of the file."""
    if dtype not in (torch.float32, torch.bfloat16):
        raise ModelError(f"models are float32 or bfloat16, not {dtype}")
    state = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in floating_state(network).items()
    }
    data = save(state, metadata={"format": "pt"})
    with atomic_file(path) as file:
        file.write(data)
    return sha256(data)


def load_model(path: Path, network: Network, channels: int, labels: int, caps: Caps) -> nn.Module:
    """The network of the spec with a stranger's weights, in float32, ready for inference.

    Names and shapes have to be exactly those of a freshly built network, values finite. ModelError
    says what is wrong; ModelTooLarge where the file passes the caps.
    """
    module = build(network, channels, labels, parameters_cap=caps.parameters)
    fill_model(path, module, caps.model_bytes)
    return module.eval()


def fill_model(path: Path, module: nn.Module, max_bytes: int) -> None:
    """Give ``module`` the weights of a stranger's file, as ``load_model`` does."""
    expected = floating_state(module)
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    read_tensors(path, shapes, max_bytes=max_bytes, into=expected)


def model_bytes(network: nn.Module) -> int:
    """What a model file of ``network`` in float32 has at most."""
    state = floating_state(network)
    values = sum(tensor.numel() for tensor in state.values())
    return 4 * values + sum(_ENTRY_BYTES + len(name) for name in state) + _HEADER_BYTES


def checkpoint_bytes(network: nn.Module) -> int:
    """What a checkpoint of ``network`` has at most, its schedule (4 bytes a step) aside."""
    state, moments = floating_state(network), len(_MOMENTS)
    parameters = dict(network.named_parameters())
    values = 2 * sum(tensor.numel() for tensor in state.values())
    values += moments * sum(tensor.numel() for tensor in parameters.values())
    names = [*state, *state, *(moments * list(parameters))]
    header = sum(_ENTRY_BYTES + len(name) for name in names)
    return 4 * values + header + _HEADER_BYTES


def save_checkpoint(
    path: Path,
    network: nn.Module,
    average: Mapping[str, torch.Tensor],
    optimiser: torch.optim.Optimizer,
    state: CheckpointState,
) -> bytes:
    """Write a checkpoint to ``path``; returns the sha-256 of the file."""
    tensors = {f"network/{name}": tensor for name, tensor in floating_state(network).items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.items()}
    for name, parameter in network.named_parameters():
        moments = optimiser.state[parameter]
        tensors |= {f"{key}/{name}": moments[key] for key in _MOMENTS}
    tensors[_SCHEDULE] = torch.tensor(state.schedule_ppm, dtype=torch.float32)
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    metadata = {
        "format": "pt",
        "step": str(state.step),
        "loss_ppm": str(state.loss_ppm),
        "steps_since_previous": str(len(state.schedule_ppm)),
        "previous": state.previous,
        "previous_sha256": state.previous_sha256,
    }
    data = save(plain, metadata=metadata)
    with atomic_file(path) as file:
        file.write(data)
    return sha256(data)


def read_checkpoint(
    path: Path, network: nn.Module, max_bytes: int = _MAX_CHECKPOINT_BYTES
) -> tuple[dict[str, torch.Tensor], CheckpointState]:
    """The tensors of a stranger's checkpoint of ``network``, float32 by name, and what it says.

    ``network/``, ``average/``, ``exp_avg/`` and ``exp_avg_sq/`` stand before the names of the
    network. ModelError where the file is not such a checkpoint or holds values that are not finite.
    """
    parameters = dict(network.named_parameters())
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in floating_state(network).items():
        kinds = ("network", "average", *(_MOMENTS if name in parameters else ()))
        shapes |= {f"{kind}/{name}": tuple(tensor.shape) for kind in kinds}
    tensors, metadata = read_tensors(path, shapes, max_bytes=max_bytes, vectors=(_SCHEDULE,))
    return tensors, _state(metadata, tensors.pop(_SCHEDULE).tolist())


def load_checkpoint(
    path: Path,
    network: nn.Module,
    average: Mapping[str, torch.Tensor],
    optimiser: torch.optim.Optimizer,
) -> CheckpointState:
    """Put network, averaged weights and AdamW back to where ``path`` was written.

    ModelError where the file is not a checkpoint of this network; nothing is changed then.
    """
    tensors, state = read_checkpoint(path, network)
    with torch.no_grad():
        for name, tensor in floating_state(network).items():
            tensor.copy_(tensors[f"network/{name}"])
        for name, tensor in average.items():
            tensor.copy_(tensors[f"average/{name}"])
        for name, parameter in network.named_parameters():
            # In the parameter's memory layout, which the fused step relies on.
            moments = {
                key: torch.zeros_like(parameter).copy_(tensors[f"{key}/{name}"]) for key in _MOMENTS
            }
            count = torch.tensor(float(state.step), device=parameter.device)
            optimiser.state[parameter] = {"step": count, **moments}
    return state


def _state(metadata: Mapping[str, str], schedule: Sequence[float]) -> CheckpointState:
    try:
        state = CheckpointState(
            step=int(metadata["step"]),
            loss_ppm=int(metadata["loss_ppm"]),
            schedule_ppm=tuple(int(value) for value in schedule),
            previous=metadata["previous"],
            previous_sha256=metadata["previous_sha256"],
        )
    except (KeyError, ValueError, OverflowError) as error:
        raise ModelError(f"the checkpoint's metadata are incomplete: {error}") from error
    if state.step < len(state.schedule_ppm):
        raise ModelError("the checkpoint's schedule is longer than its training")
    if not all(0 <= share <= SCORE_ONE_PPM for share in state.schedule_ppm):
        raise ModelError("the checkpoint's schedule leaves the budget")
    return state
