"""What every process of a team does alike, and what those do that follow rank 0."""

from __future__ import annotations

import torch

from pouw.ml.device import make_repeatable, torch_device
from pouw.ml.distributed import Team
from pouw.ml.feeding import BatchFeed, training_sampler
from pouw.ml.learner import Learner
from pouw.ml.requests import Engine, Run, TrainingRequest

# What rank 0 says before a step; which step follows from counting.
END, STEP = 0, 1


def make_learner(request: TrainingRequest, engine: Engine, team: Team) -> Learner:
    """The learner of a request in this process, which it settles for repeatable arithmetic."""
    device = torch_device(engine, team.rank)
    make_repeatable(device, engine.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return Learner(request.spec, _seed(request), request.settings, engine, team)


def make_feed(request: TrainingRequest, engine: Engine, team: Team) -> BatchFeed:
    """The batches of this process; one that is alone takes those of all that the engine names."""
    sampler = training_sampler(
        request.spec, request.data, _seed(request), request.settings, engine.threads
    )
    ranks = range(engine.processes) if team.processes == 1 else [team.rank]
    return BatchFeed(sampler, ranks, torch_device(engine, team.rank))


def follow(request: TrainingRequest, team: Team) -> None:
    """Make the steps that rank 0 says, on batches of this process's own, until it says the end."""
    text = team.agree_on_text("")
    if not text:
        return
    engine = Run.parse(text).engine
    learner = make_learner(request, engine, team)
    feed = make_feed(request, engine, team)
    checkpoint, step = team.agree_on_text(""), 0
    if checkpoint:
        step = learner.load(request.out / checkpoint).step
    try:
        while True:
            order, fraction_ppm = team.agree()
            if order == END:
                return
            learner.step(feed.batches(step), fraction_ppm)
            step += 1
    finally:
        feed.close()


def _seed(request: TrainingRequest) -> bytes:
    return bytes.fromhex(request.seed[2:])
