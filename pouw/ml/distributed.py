"""Several processes that train one network together, started by ``torchrun``.

Every process takes its own batch of a step; gradients are averaged, so all hold the same weights.
The process of rank 0 leads: it alone looks at the clock, validates and writes files, and tells the
others before every step what comes next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

# Longer than anything that rank 0 does alone between two words to the others.
_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Team:
    """This process's place among those that train together; alone by default."""

    rank: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process looks at the clock and writes the files."""
        return self.rank == 0

    def agree(self, first: int = 0, second: int = 0) -> tuple[int, int]:
        """Two integers of rank 0, known to all once this returns; the others' are ignored."""
        if self.processes == 1:
            return first, second
        words = torch.tensor([first, second], dtype=torch.int64)
        distributed.broadcast(words, src=0)
        return int(words[0]), int(words[1])

    def agree_on_text(self, text: str) -> str:
        """A text of rank 0, known to all once this returns."""
        if self.processes == 1:
            return text
        words = [text]
        distributed.broadcast_object_list(words, src=0, device=torch.device("cpu"))
        return words[0]

    def averaged(self, network: nn.Module, device: torch.device) -> nn.Module:
        """``network``, whose gradients are averaged over all processes in every backward pass."""
        if self.processes == 1:
            return network
        ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids)


@contextmanager
def gathered() -> Iterator[Team]:
    """The team that ``torchrun`` started this process in; a team of one without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Team()
        return
    # Words between processes are CPU tensors and go by gloo, so no GPU waits for them.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
