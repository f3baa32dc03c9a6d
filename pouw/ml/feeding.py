"""Cases from disk to the sampler: decoded once, kept in memory, drawn ahead of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from pouw.documents import TaskSpec
from pouw.ml.data import CaseFile, Image, Label, load_case, read_dataset, split_validation
from pouw.ml.inference import prepare, prepare_label
from pouw.ml.requests import TrainingSettings
from pouw.ml.sampling import Batch, PatchSampler, items_of
from pouw.ml.validation import ValidationCase


def training_sampler(
    spec: TaskSpec, data: Path, seed: bytes, settings: TrainingSettings, threads: int = 1
) -> PatchSampler:
    """The batches of every step on the opened training archive ``data``.

    The same for a miner and for a stranger who repeats a segment; ``threads`` decode cases.
    """
    train, _ = split_validation(read_dataset(data).train)
    patch = spec.inference.patch
    cases = _load(train, spec, threads)
    items = [item for image, label in cases for item in items_of(image, label, patch)]
    return PatchSampler(items, patch, seed, settings)


def validation_cases(spec: TaskSpec, data: Path, threads: int = 1) -> list[ValidationCase]:
    """The cases of ``data`` that are not trained on."""
    _, held_out = split_validation(read_dataset(data).train)
    return [ValidationCase(image, label) for image, label in _load(held_out, spec, threads)]


def _load(files: Sequence[CaseFile], spec: TaskSpec, threads: int) -> list[tuple[Image, Label]]:
    def load(file: CaseFile) -> tuple[Image, Label]:
        case = load_case(file, len(spec.labels))
        return prepare(case, spec), prepare_label(case, spec)

    if threads == 1:
        return [load(file) for file in files]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(load, files))


class BatchFeed:
    """The batches of one process, in the order they are asked for: one for each of ``ranks``.

    For a GPU the next ones are cut by a thread while the present ones are trained on. On a CPU that
    thread would only take time from the training.
    """

    def __init__(self, sampler: PatchSampler, ranks: Sequence[int], device: torch.device) -> None:
        self._sampler = sampler
        self._ranks = ranks
        self._pool = ThreadPoolExecutor(1) if device.type == "cuda" else None
        self._ahead: dict[int, Future[list[Batch]]] = {}

    def batches(self, step: int) -> list[Batch]:
        """The batches of ``step``; those of the next are begun."""
        if self._pool is None:
            return self._cut(step)
        ready = self._ahead.pop(step, None)
        self._ahead = {step + 1: self._pool.submit(self._cut, step + 1)}
        return ready.result() if ready else self._cut(step)

    def close(self) -> None:
        """Cut no more."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _cut(self, step: int) -> list[Batch]:
        return [self._sampler.batch(step, rank) for rank in self._ranks]
