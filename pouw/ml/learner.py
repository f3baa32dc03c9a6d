"""One network, its loss, its optimiser and the running average of its weights.

The average is the model that a miner submits: on a short budget it scores better than the last
weights do.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.losses.dice import DiceCELoss
from torch import Tensor, nn

from pouw.documents import TaskSpec
from pouw.errors import ModelError
from pouw.hashing import sha256
from pouw.ml.augment import shaded
from pouw.ml.checkpoint import (
    CheckpointState,
    floating_state,
    load_checkpoint,
    save_checkpoint,
    save_model,
)
from pouw.ml.device import torch_device
from pouw.ml.distributed import Team
from pouw.ml.kernels import laid_out, quicken
from pouw.ml.networks import build
from pouw.ml.requests import Engine, Precision, TrainingSettings
from pouw.ml.sampling import Batch
from pouw.types import SCORE_ONE_PPM

BETAS = (0.9, 0.99)


def learning_rate(fraction_ppm: int, settings: TrainingSettings) -> float:
    """The rate at a share of the budget: a linear rise, then half a cosine down to zero."""
    peak = settings.learning_rate_ppm / SCORE_ONE_PPM
    if fraction_ppm < settings.warmup_ppm:
        # Not zero at the very start, or the first step would be lost.
        return peak * max(fraction_ppm / settings.warmup_ppm, 0.05)
    left = (SCORE_ONE_PPM - fraction_ppm) / max(SCORE_ONE_PPM - settings.warmup_ppm, 1)
    return peak * (0.5 - 0.5 * math.cos(math.pi * left))


def warm_up() -> None:
    """Have torch import what it otherwise imports when the first optimiser is built (a second)."""
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])


class Learner:
    """Trains a spec's network from a 32-byte seed; ``model`` is the average, in inference mode.

    Weights, averages, loss and optimiser are float32 whatever the engine; its precision is that of
    the network's forward and backward passes.
    """

    def __init__(
        self,
        spec: TaskSpec,
        seed: bytes,
        settings: TrainingSettings,
        engine: Engine,
        team: Team | None = None,
    ) -> None:
        team = team or Team()
        torch.manual_seed(int.from_bytes(sha256(seed + b"weights")[:8], "big") >> 1)
        network = build(
            spec.network,
            len(spec.channels),
            len(spec.labels),
            parameters_cap=spec.caps.parameters,
        )
        self.device = torch_device(engine, team.rank)
        self.engine = engine
        self.model = copy.deepcopy(network).to(self.device).eval().requires_grad_(False)
        self.network = network.to(self.device).train()
        self._layout = torch.contiguous_format
        if engine.channels_last:
            self._layout = torch.channels_last if spec.spatial_dims == 2 else torch.channels_last_3d
            for parameter in self.network.parameters():
                if parameter.dim() == spec.spatial_dims + 2:
                    parameter.data = laid_out(parameter.data, self._layout)
        if self.device.type == "cpu" and not engine.compiled:
            quicken(self.network, self._layout)
        self._trained = team.averaged(self.network, self.device)
        if engine.compiled:
            self._trained.compile(dynamic=False)  # every batch has the same shape
        self._settings = settings
        self._averages = list(floating_state(self.model).values())
        self._weights = list(floating_state(self.network).values())
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=learning_rate(0, settings),
            betas=BETAS,
            weight_decay=settings.weight_decay_ppm / SCORE_ONE_PPM,
            fused=True,
        )
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)

    def step(self, batches: Sequence[Batch], fraction_ppm: int) -> float:
        """One optimiser step on the mean loss of ``batches``, which is returned.

        In a team every process passes its own batch. One process that repeats such a step passes
        the batches of all. ModelError where training diverged.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(fraction_ppm, self._settings)
        self._optimiser.zero_grad(set_to_none=True)
        value = 0.0
        for batch in batches:
            loss = self._loss_of(batch) / len(batches)
            torch.autograd.backward(loss)
            value += float(loss.detach())
        step = batches[0].step
        if not math.isfinite(value):
            raise ModelError(
                f"training diverged at step {step}", hint="lower learning_rate_ppm in the settings"
            )
        torch.nn.utils.clip_grad_norm_(
            self.network.parameters(), self._settings.gradient_norm_ppm / SCORE_ONE_PPM
        )
        self._optimiser.step()
        # A young average follows faster, or it would remember the random start.
        decay = min(self._settings.ema_ppm / SCORE_ONE_PPM, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        return value

    def _loss_of(self, batch: Batch) -> Tensor:
        # For what the network itself draws: dropout.
        torch.manual_seed(batch.seed)
        strength = self._settings.intensity_ppm / SCORE_ONE_PPM
        images = shaded(self._moved(torch.from_numpy(batch.images)), batch, strength)
        labels = self._moved(torch.from_numpy(batch.labels)).long()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.engine.precision == "bfloat16"
        ):
            logits = self._trained(laid_out(images, self._layout))
        loss: Tensor = self._loss(logits.float(), labels)
        return loss

    def _moved(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def save(
        self,
        model: Path,
        checkpoint: Path,
        state: CheckpointState,
        dtype: Precision = "float32",
    ) -> bytes:
        """Write the model in ``dtype``, then the checkpoint; each appears whole.

        Returns the checkpoint's sha-256.
        """
        save_model(model, self.model, getattr(torch, dtype))
        return save_checkpoint(
            checkpoint, self.network, floating_state(self.model), self._optimiser, state
        )

    def load(self, checkpoint: Path) -> CheckpointState:
        """Go on from a checkpoint of this network; ModelError where it is none."""
        return load_checkpoint(
            checkpoint, self.network, floating_state(self.model), self._optimiser
        )
