"""Half the bytes of a model: weights in bfloat16, where validation cannot tell the difference.

Scoring is float32 whatever the weights' dtype, so the loss can be measured before anything is
committed to: the rounded weights are what an oracle computes with.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from pouw.documents import TaskSpec
from pouw.ml.checkpoint import floating_state
from pouw.ml.validation import ValidationCase, Window, validate

TOLERANCE_PPM = 1_000


def rounded(network: nn.Module) -> nn.Module:
    """A copy of ``network`` in float32 whose weights went through bfloat16, as in a model file."""
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in floating_state(twin).values():
            tensor.copy_(tensor.to(torch.bfloat16))
    return twin


def halves_well(
    network: nn.Module, cases: Sequence[ValidationCase], spec: TaskSpec, window: Window
) -> bool:
    """Whether bfloat16 weights lose at most 0.001 of the mean Dice over the validation cases.

    Both are compared on the same cases, as many as ``window`` leaves time for; False for none.
    """
    twin, full_ppm, half_ppm, compared = rounded(network), 0, 0, 0
    for case in cases:
        if compared and window.clock_ms() >= window.enough_ms:
            break
        full = validate(network, [case], spec, window)
        half = validate(twin, [case], spec, window)
        if full is None or half is None:
            break
        full_ppm, half_ppm = full_ppm + full.dice_ppm, half_ppm + half.dice_ppm
        compared += 1
    return compared > 0 and full_ppm - half_ppm <= TOLERANCE_PPM * compared
