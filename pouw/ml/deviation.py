"""How far a training that was repeated ended from where the first one is said to have ended.

Other hardware rounds otherwise, and training amplifies that, so ends of honest repetitions differ
by a little that grows with the number of steps. Attacks differ by about as much as training moved
the layer at all. Per layer the distance of weights is therefore taken relative to that movement,
of optimiser state relative to its size, and one bound in between tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

_PPB: Final = 1_000_000_000
_LARGEST: Final = 2**53
_WEIGHTS: Final = ("network/", "average/")
_BOUNDS_PPB: Final = {"float32": 50_000_000, "bfloat16": 300_000_000}

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Deviation:
    """The worst layer and how far it is off, in parts per billion; ``exact``: no bit differs."""

    layer: str
    ppb: int
    exact: bool


def deviation(begin: State, repeated: State, claimed: State) -> Deviation:
    """Compare the end of a repeated segment with the claimed one; all finite, of equal shapes.

    Names are those of a checkpoint's tensors. ``begin`` is where both began.
    """
    distances = {
        name: _distance(name, begin.get(name), tensor, claimed[name])
        for name, tensor in repeated.items()
    }
    layer = max(distances, key=distances.__getitem__)
    exact = all(torch.equal(tensor, claimed[name]) for name, tensor in repeated.items())
    return Deviation(layer, min(round(distances[layer] * _PPB), _LARGEST), exact)


def _distance(
    name: str, begin: torch.Tensor | None, repeated: torch.Tensor, claimed: torch.Tensor
) -> float:
    # In float64: the difference of nearly equal numbers is what counts here.
    far = (repeated.double() - claimed.double()).norm().item()
    if far == 0:
        return 0.0
    moved = repeated.double()
    if begin is not None and name.startswith(_WEIGHTS):
        moved = moved - begin.double()
    return float(far / max(moved.norm().item(), torch.finfo(torch.float32).tiny))


def deviation_bound_ppb(precision: str) -> int:
    """Up to what deviation another machine's end counts as the same training.

    Measured by ``benchmarks/provenance.py`` at the default of 200 steps a segment.
    """
    return _BOUNDS_PPB[precision]
