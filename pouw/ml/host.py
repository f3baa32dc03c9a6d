"""A stranger's model on this machine: loaded and run within bounds of memory and of CPU time.

What the caps of a task and the size of an image explain is allowed, and some more; a model that
passes it is at fault. A process of its own for models gives up the rest (``run_confined``).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import nn

from pouw.documents import Caps, TaskSpec
from pouw.errors import ConfigError, DataError, ModelError, PouwError
from pouw.ml.checkpoint import load_model
from pouw.ml.data import Image
from pouw.ml.device import choose_device, make_repeatable, settle_imports
from pouw.ml.inference import window_count, windows_at_once
from pouw.ml.kernels import laid_out
from pouw.ml.networks import build
from pouw.ml.requests import DeviceName
from pouw.ml.sandbox import confine, cpu_limit, exit_status, memory_limit

_SPARE_BYTES = 512 << 20  # for libraries' scratch space
_SPARE_SECONDS = 60.0
_SLOWNESS = 20  # times the CPU time of a network with fresh weights, and a model is too slow


class TooSlow(PouwError):
    """The model takes far more CPU time than its network should."""


class MachineFault(PouwError):
    """What this machine cannot do, which says nothing about a model or a task."""


class Host:
    """One device, process-wide set up for so many CPU threads; ConfigError where it is absent."""

    def __init__(self, device: DeviceName, threads: int) -> None:
        self.device = choose_device(device)
        make_repeatable(self.device, threads)
        # Starts torch's threads: their stacks must not count against a model's memory.
        torch.ones(1 << 20).add_(1)
        # Likewise a GPU's driver: once the process is confined, it could not start what it needs.
        torch.zeros(1, device=self.device)
        self._window_seconds: dict[bytes, float] = {}

    def rehearse(self, spec: TaskSpec) -> None:
        """Run the spec's network once with fresh weights, before any model's.

        DataError where nobody can run it, whatever the weights; MachineFault where only this
        machine cannot.
        """
        try:
            # On torch's device of no memory: the same on every machine.
            windows_at_once(spec)
            with self._bounded_memory(_loading_bytes(spec.caps) + 2 * spec.caps.activation_bytes):
                self._pace(spec)
        except (ModelError, ValueError) as error:
            raise DataError(f"nobody can run the task's network: {error}") from error
        except (MemoryError, RuntimeError) as error:
            raise MachineFault(f"this machine cannot run the task's network: {error}") from error

    def load(self, model: Path, spec: TaskSpec) -> nn.Module:
        """The model in the file, ready for ``predict_stored``; ModelError where it is none.

        MemoryError, OSError: this machine could not load it. Its file and its network are within
        the caps before any of it is, so that it is never the model that takes too much.
        """
        try:
            with self._bounded_memory(_loading_bytes(spec.caps)):
                network = load_model(
                    model, spec.network, len(spec.channels), len(spec.labels), spec.caps
                )
                return self._placed(network, spec)
        except RuntimeError as error:  # torch's word for it
            raise MemoryError(f"loading the model: {error}") from error

    def bounded(
        self, name: str, image: Image, spec: TaskSpec
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Bounds for predicting the prepared ``image`` (C, X, Y, Z) of the case ``name``.

        Call what they yield between slabs: TooSlow where the CPU time is over, and this machine
        has not become as slow itself. Memory beyond the bound fails where it is allocated:
        MemoryError, or torch's RuntimeError.
        """
        windows = _SLOWNESS * window_count(image.shape[1:], spec)
        return self._bounded(
            name,
            _SPARE_SECONDS + windows * self._pace(spec),
            lambda: _SPARE_SECONDS + windows * self._measured_pace(spec),
            _predicting_bytes(image, spec),
        )

    @contextlib.contextmanager
    def _bounded(
        self, name: str, seconds: float, seconds_now: Callable[[], float], limit_bytes: int
    ) -> Iterator[Callable[[], None]]:
        begun, allowed = time.process_time(), seconds

        def check_time() -> None:
            nonlocal allowed
            used = time.process_time() - begun
            if used > allowed:
                allowed = max(allowed, seconds_now())
            if used > allowed:
                raise TooSlow(f"case {name} took more than {allowed:.0f} s of CPU time")

        # The kernel's limit is for what does not come back to look at the clock.
        with denormals_flushed(), cpu_limit(2 * seconds), self._bounded_memory(limit_bytes):
            yield check_time

    def _placed(self, network: nn.Module, spec: TaskSpec) -> nn.Module:
        if self.device.type == "cpu":
            fast_layout(network, spec.spatial_dims)
        return network.to(self.device)

    def _bounded_memory(self, limit_bytes: int) -> contextlib.AbstractContextManager[None]:
        # A CUDA driver maps memory as it likes; there the caps bound what a model takes.
        cuda = self.device.type == "cuda"
        return contextlib.nullcontext() if cuda else memory_limit(limit_bytes)

    def _pace(self, spec: TaskSpec) -> float:
        """CPU seconds that a window takes with fresh weights here, measured once for a spec."""
        if spec.digest() not in self._window_seconds:
            self._window_seconds[spec.digest()] = self._measured_pace(spec)
        return self._window_seconds[spec.digest()]

    @torch.inference_mode()
    def _measured_pace(self, spec: TaskSpec) -> float:
        count = windows_at_once(spec)
        network = self._placed(
            build(
                spec.network,
                len(spec.channels),
                len(spec.labels),
                parameters_cap=spec.caps.parameters,
            ),
            spec,
        )
        windows = torch.zeros((count, len(spec.channels), *spec.inference.patch))
        seconds = 0.0
        for _ in range(2):  # the first also allocates
            begun = time.process_time()
            # Back from the device: until then a GPU has only been asked.
            network.eval()(windows.to(self.device)).cpu()
            seconds = (time.process_time() - begun) / count
        return seconds


def run_confined(
    name: str,
    about: str,
    arguments: list[str],
    begin: Callable[[DeviceName], Callable[[TextIO], None]],
) -> int:
    """The ``main`` of ``python -m pouw.ml.NAME``; returns its exit code.

    ``begin`` gets the device and makes what serves, which is called confined, with the
    stream of the answers; ConfigError where the device is absent.
    """
    parser = argparse.ArgumentParser(prog=f"python -m pouw.ml.{name}", description=about)
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu")
    options = parser.parse_args(arguments)
    settle_imports()
    # Before the first parallel loop: the threads of torch's pool inherit it.
    torch.set_flush_denormal(True)
    # Whatever a library prints from here on goes to standard error.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        try:
            serve = begin(options.device)
        except ConfigError as error:
            print(f"{name} cannot start: {error}", file=sys.stderr)
            return 1
        print(f"confined by {confine()}", file=sys.stderr)
        return exit_status(lambda: serve(answers))


def _loading_bytes(caps: Caps) -> int:
    """What loading a model may take: the file, a copy, its float32 form, and the network."""
    return 4 * caps.model_bytes + 8 * caps.parameters + _SPARE_BYTES


def _predicting_bytes(image: Image, spec: TaskSpec) -> int:
    """What predicting one case may take: activations, the image padded, and all sums twice."""
    sums = 4 * len(spec.labels) * int(np.prod(image.shape[1:]))
    return 2 * spec.caps.activation_bytes + 4 * image.nbytes + 4 * sums + _SPARE_BYTES


def fast_layout(network: nn.Module, spatial_dims: int) -> None:
    """Put the weights, in place, into the memory layout in which a CPU predicts fastest.

    Channels last, up to 1.5 times as fast and slower for no network of the registry
    (``make bench-oracle``).
    """
    layout = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
    for parameter in network.parameters():
        if parameter.dim() == spatial_dims + 2:
            parameter.data = laid_out(parameter.data, layout)


@contextlib.contextmanager
def denormals_flushed() -> Iterator[None]:
    """Weights chosen to drown a CPU in denormal numbers cost no more than others here.

    It holds for this thread and those that it starts; threads of a pool keep what they began with.
    """
    already = float(torch.tensor([1e-40]) * 1) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)
