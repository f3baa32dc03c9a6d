"""One network, its loss, its optimiser and the running average of its weights.

The average is the model that a miner submits: on a short budget it scores better than the last
weights do.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import torch
from monai.losses.dice import DiceCELoss
from numpy.typing import NDArray
from torch import nn

from pouw.documents import TaskSpec
from pouw.errors import ModelError
from pouw.hashing import sha256
from pouw.ml.checkpoint import (
    CheckpointState,
    floating_state,
    load_checkpoint,
    save_checkpoint,
    save_model,
)
from pouw.ml.data import Image
from pouw.ml.networks import build
from pouw.ml.requests import TrainingSettings
from pouw.types import SCORE_ONE_PPM

_BETAS = (0.9, 0.99)


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
    """Trains a spec's network from a 32-byte seed; ``model`` is the average, in inference mode."""

    def __init__(
        self, spec: TaskSpec, seed: bytes, settings: TrainingSettings, device: torch.device
    ) -> None:
        torch.manual_seed(int.from_bytes(sha256(seed + b"weights")[:8], "big") >> 1)
        network = build(
            spec.network,
            len(spec.channels),
            len(spec.labels),
            parameters_cap=spec.caps.parameters,
        )
        self._layout = torch.channels_last if spec.spatial_dims == 2 else torch.channels_last_3d
        self.network = network.to(device).train()
        for parameter in self.network.parameters():
            if parameter.dim() == spec.spatial_dims + 2:
                parameter.data = parameter.data.contiguous(memory_format=self._layout)
        self.model = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.device = device
        self._settings = settings
        self._pairs = list(
            zip(
                floating_state(self.model).values(),
                floating_state(self.network).values(),
                strict=True,
            )
        )
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=learning_rate(0, settings),
            betas=_BETAS,
            weight_decay=settings.weight_decay_ppm / SCORE_ONE_PPM,
            fused=True,
        )
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)

    def step(self, images: Image, labels: NDArray[np.int64], step: int, fraction_ppm: int) -> float:
        """One optimiser step on images (B, C, *patch) and labels (B, 1, *patch); its loss.

        ModelError where training diverged.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(fraction_ppm, self._settings)
        self._optimiser.zero_grad(set_to_none=True)
        inputs = torch.from_numpy(images).to(self.device, memory_format=self._layout)
        logits = self.network(inputs)
        loss = self._loss(logits, torch.from_numpy(labels).to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(
            self.network.parameters(), self._settings.gradient_norm_ppm / SCORE_ONE_PPM
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"training diverged at step {step}", hint="lower learning_rate_ppm in the settings"
            )
        self._optimiser.step()
        # A young average follows faster, or it would remember the random start.
        decay = min(self._settings.ema_ppm / SCORE_ONE_PPM, (1 + step) / (10 + step))
        with torch.no_grad():
            for average, weights in self._pairs:
                average.lerp_(weights, 1 - decay)
        return value

    def save(self, model: Path, checkpoint: Path, state: CheckpointState) -> bytes:
        """Write the model, then the checkpoint; each appears whole. The checkpoint's sha-256."""
        save_model(model, self.model)
        return save_checkpoint(
            checkpoint, self.network, floating_state(self.model), self._optimiser, state
        )

    def load(self, checkpoint: Path) -> CheckpointState:
        """Go on from a checkpoint of this network; ModelError where it is none."""
        return load_checkpoint(
            checkpoint, self.network, floating_state(self.model), self._optimiser
        )
