"""How many more checkpoints a training may write: a manifest holds so many, and so many bytes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pouw.documents import MAX_CHECKPOINTS, TaskSpec
from pouw.ml.checkpoint import checkpoint_bytes
from pouw.ml.replays import MAX_SEGMENT_STEPS, max_checkpoints_bytes

_STEP_BYTES = 4
_UNBOUNDED = 1 << 62


@dataclass(slots=True)
class Room:
    """What a manifest still holds: ``number`` of checkpoints, and their ``bytes`` together.

    ``each``: bytes of one checkpoint at most, its schedule (4 bytes a step) aside.
    """

    number: int
    bytes: int
    each: int

    def add(self, size: int) -> None:
        """Take off a checkpoint of ``size`` bytes."""
        self.number -= 1
        self.bytes -= size

    def holds(self, steps: int) -> int:
        """How many more checkpoints fit, the next of them ``steps`` after the one before."""
        if steps > MAX_SEGMENT_STEPS:
            return 0
        return max(0, min(self.number, (self.bytes - _STEP_BYTES * steps) // self.each))


def room_of(spec: TaskSpec, network: nn.Module) -> Room:
    """What a manifest of this task holds; without bounds where it lists no checkpoint."""
    if spec.provenance.policy == "none":
        return Room(_UNBOUNDED, _UNBOUNDED, 1)
    return Room(MAX_CHECKPOINTS, max_checkpoints_bytes(spec.caps), checkpoint_bytes(network))
