"""How far a training that was repeated ended from where the first one is said to have ended.

Other hardware rounds otherwise, and training amplifies that: ends of honest repetitions differ by
what grows with the number of steps, ends of forgeries by about as much as training moves weights at
all. So every layer's distance is taken relative to that movement, and one bound in between tells
them apart while segments are short.

Biases, scales and slopes alone say nothing: one of a convolution before an instance norm has no
gradient but rounding, which AdamW turns into full steps. They count within the whole. Nor do
AdamW's moments, which follow the last few batches; ``is_possible`` bounds what they can hide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from pouw.ml.learner import BETAS

# The longest segment that the bound was measured for.
BOUND_STEPS: Final = 50

_PPB: Final = 1_000_000_000
_LARGEST: Final = 2**53
_WEIGHTS: Final = ("network", "average")
# By benchmarks/provenance.py: no forged end was as near as the bound, and no honest one past it
# three times as far off as the yardstick.
_BOUND_PPB_A_STEP: Final = 6_000_000
_LEAST_BOUND_PPB: Final = 100_000_000
_AS_FAR: Final = 3
# |exp_avg| <= c * sqrt(exp_avg_sq) for any gradients whatever, by Cauchy and Schwarz.
_LARGEST_RATIO: Final = (1 - BETAS[0]) / math.sqrt((1 - BETAS[1]) * (1 - BETAS[0] ** 2 / BETAS[1]))
# Squares of smaller gradients vanish in float32; a step from them is no step.
_ROUNDING: Final = 1e-3
_VANISHING: Final = 1e-17

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Deviation:
    """The worst layer and how far it is off, in parts per billion; ``exact``: no bit differs."""

    layer: str
    ppb: int
    exact: bool


def deviation(begin: State, repeated: State, claimed: State) -> Deviation:
    """Compare the end of a repeated segment with the claimed one; all finite, of equal shapes.

    Names are those of a checkpoint's tensors; ``begin`` is where both began. A layer is a tensor of
    two or more axes of the weights or their average, or all of either together.
    """
    off: dict[str, float] = {}
    for kind in _WEIGHTS:
        far = moved = 0.0
        for name, tensor in repeated.items():
            if not name.startswith(f"{kind}/"):
                continue
            # In float64: the difference of nearly equal numbers is what counts here.
            here = (tensor.double() - claimed[name].double()).norm().item()
            way = (tensor.double() - begin[name].double()).norm().item()
            far, moved = math.hypot(far, here), math.hypot(moved, way)
            if tensor.dim() > 1:
                off[name] = _ratio(here, way)
        off[kind] = _ratio(far, moved)
    layer = max(off, key=off.__getitem__)
    exact = all(torch.equal(tensor, claimed[name]) for name, tensor in repeated.items())
    return Deviation(layer, min(round(off[layer] * _PPB), _LARGEST), exact)


def _ratio(far: float, moved: float) -> float:
    return far / max(moved, torch.finfo(torch.float32).tiny) if far else 0.0


def deviation_bound_ppb(steps: int) -> int:
    """Up to what deviation another machine's end of so many steps counts as the same training."""
    return max(_LEAST_BOUND_PPB, steps * _BOUND_PPB_A_STEP)


def is_as_far(deviation_ppb: int, own_ppb: int) -> bool:
    """Whether an end that is further off than the bound may yet be an honest one.

    ``own_ppb``: how far two repetitions ended from each other on one machine, in two memory
    layouts. A unit that fires in one rounding and not in the other is enough to part them, and the
    deeper the network the sooner; a bound for all networks cannot know.
    """
    return deviation_ppb <= _AS_FAR * own_ppb


def is_possible(state: State) -> bool:
    """Whether any gradients at all can have left AdamW's two moments as they are.

    Moments out of proportion would carry the next step to wherever a forger wants to be.
    """
    prefix = "exp_avg/"
    for name, mean in state.items():
        if name.startswith(prefix):
            square = state[f"exp_avg_sq/{name.removeprefix(prefix)}"]
            if bool((square < 0).any()):
                return False
            most = square.double().sqrt() * (_LARGEST_RATIO * (1 + _ROUNDING)) + _VANISHING
            if bool((mean.double().abs() > most).any()):
                return False
    return True
