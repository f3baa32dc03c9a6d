"""Sensible defaults for a task, from the headers of its data. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pouw.documents import Caps, InferenceRecipe, Network


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a TaskSpec says about how to segment: network, inference recipe, caps."""

    network: Network
    inference: InferenceRecipe
    caps: Caps
