"""The fastest correct way to train a network on this machine, chosen by a short trial.

Run before Phase 1, while the sealed data downloads, on made-up images of the task's shape: plain
float32 first, then what may be faster. What is not faster by a clear margin, or not correct, is not
taken, so a step is never slower than plain float32's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch

from pouw.ml.device import describe_device, describe_software, torch_device
from pouw.ml.learner import Learner
from pouw.ml.requests import Engine, Trial, Tuned, TuningRequest
from pouw.ml.sampling import PatchSampler, items_of
from pouw.ml.selftest import convolution_fault

_SEED = b"trial".ljust(32, b"\0")
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 12
_ROUNDS_SECONDS = 20.0
_CLEAR_MARGIN = 0.97
_COMPILE_SECONDS = 120.0

Clock = Callable[[], float]


def candidates(engine: Engine) -> Iterator[Engine]:
    """Plain float32, then everything else worth a try; compiled ones only where asked for."""
    for compiled, precision, channels_last in product(
        (False, True) if engine.compiled else (False,),
        ("float32", "bfloat16"),
        (False, True),
    ):
        yield engine.model_copy(
            update={
                "compiled": compiled,
                "precision": precision,
                "channels_last": channels_last,
            }
        )


def synthetic_sampler(request: TuningRequest) -> PatchSampler:
    """Batches of noise, of the shape that the task's have."""
    spec = request.spec
    patch = spec.inference.patch
    shape = (*patch, 1) if len(patch) == 2 else patch
    random = np.random.Generator(np.random.Philox(1))
    image = random.standard_normal((len(spec.channels), *shape), dtype=np.float32)
    label = random.integers(0, len(spec.labels), shape, dtype=np.uint8)
    return PatchSampler(items_of(image, label, patch), patch, _SEED, request.settings)


def step_clock(engine: Engine) -> Callable[[], float]:
    """What times a step of ``engine``, in seconds.

    With one thread on a CPU that is the processor's time, which other processes add nothing to.
    """
    alone = engine.device == "cpu" and engine.threads == 1
    return time.process_time if alone else time.perf_counter


class _Runner:
    """One candidate and how fast it was; ``fault`` says why it is out."""

    def __init__(self, request: TuningRequest, engine: Engine) -> None:
        self.engine = engine
        self.fault = ""
        self.fastest_seconds = float("inf")
        alone = engine.model_copy(update={"processes": 1})
        self._learner = Learner(request.spec, _SEED, request.settings, alone)

    def test(self, sampler: PatchSampler) -> None:
        """Look for wrong convolutions."""
        if self.engine.precision == "bfloat16":
            images = torch.from_numpy(sampler.batch(0).images).to(self._learner.device)
            fault = convolution_fault(self._learner.network, images)
            self.fault = f"bfloat16 is wrong here: {fault}" if fault else ""

    def warm(self, sampler: PatchSampler) -> None:
        """A first step, which compiles and allocates."""
        try:
            self._learner.step([sampler.batch(0)], 0)
        except RuntimeError as error:  # what a compiler, or an exhausted memory, raises
            self.fault = f"does not run: {str(error).strip().splitlines()[0][:200]}"

    def run(self, sampler: PatchSampler, step: int) -> None:
        clock = step_clock(self.engine)
        begun = clock()
        self._learner.step([sampler.batch(step)], 0)
        self.fastest_seconds = min(self.fastest_seconds, clock() - begun)

    def outcome(self) -> Trial:
        return Trial(
            engine=self.engine,
            step_microseconds=None if self.fault else max(1, round(self.fastest_seconds * 1e6)),
            fault=self.fault,
        )


def tune(request: TuningRequest, now_ms: Clock) -> Tuned:
    """Try the candidates by turns and choose; what is out of time is not tried.

    The fastest of several steps is compared: a busy machine only ever adds to a step.
    """
    device = torch_device(request.engine)
    given = request.engine.model_copy(update={"device": device.type})
    sampler = synthetic_sampler(request)
    runners: list[_Runner] = []
    for engine in candidates(given):
        needed_ms = 1000 * (_COMPILE_SECONDS if engine.compiled else 1.0)
        if runners and now_ms() + needed_ms > request.stop_at_ms:
            continue
        runner = _Runner(request, engine)
        runner.test(sampler)
        if not runner.fault:
            runner.warm(sampler)
        runners.append(runner)
    sound = [runner for runner in runners if not runner.fault]
    begun = time.monotonic()
    for number in range(_MOST_ROUNDS):
        late = time.monotonic() - begun > _ROUNDS_SECONDS or now_ms() > request.stop_at_ms
        if number >= _LEAST_ROUNDS and late:
            break
        for runner in sound:
            runner.run(sampler, number + 1)
    return Tuned(
        engine=_choose(runners).engine,
        trials=tuple(runner.outcome() for runner in runners),
        software=describe_software(),
        device=describe_device(device, given.threads),
    )


def _choose(runners: list[_Runner]) -> _Runner:
    plain = runners[0]
    fastest = min(
        (runner for runner in runners if not runner.fault),
        key=lambda runner: runner.fastest_seconds,
        default=plain,
    )
    clear = fastest.fastest_seconds < plain.fastest_seconds * _CLEAR_MARGIN
    return fastest if clear or plain.fault else plain
