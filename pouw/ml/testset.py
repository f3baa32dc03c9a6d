"""The cases of an opened test set, prepared once, and what is counted on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pouw.documents import TaskSpec
from pouw.errors import DataError
from pouw.ml.bound import at_best, in_hash_order
from pouw.ml.data import CaseFile, Image, Label, load_case
from pouw.ml.dice import Counts, case_counts
from pouw.ml.inference import Slab, prepare
from pouw.ml.layout import read_opened
from pouw.ml.preprocess import MAX_PREPARED_BYTES
from pouw.ml.sandbox import memory_limit

_CACHE_BYTES = 2 << 30
_PREPARING_BYTES = 16 * MAX_PREPARED_BYTES  # intensities are normalised in float64, with copies


@dataclass(frozen=True, slots=True)
class LabelledCase:
    """A prepared image (C, X, Y, Z) with its label as stored, and each foreground label's size."""

    name: str
    image: Image
    label: Label
    true: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The stored grid."""
        x, y, z = self.label.shape
        return x, y, z


class OpenedSet:
    """One opened test archive at a time; other data or another spec takes its place."""

    def __init__(self) -> None:
        self._key: tuple[Path, bytes] | None = None
        self._files: dict[str, CaseFile] = {}
        self._cases: dict[str, LabelledCase] = {}
        self._cached_bytes = 0

    def open(self, data: Path, spec: TaskSpec, chosen: Sequence[str] | None) -> tuple[str, ...]:
        """The names of ``chosen`` cases, or of all in hash order; DataError where one is absent.

        The folder is listed again where a chosen case is not known: a node of a cluster gets them
        one after the other.
        """
        key = (data.resolve(), spec.digest())
        known = key == self._key and all(name in self._files for name in chosen or ())
        if not known:
            if key != self._key:
                self._key, self._cases, self._cached_bytes = None, {}, 0
            self._files = {file.name: file for file in read_opened(data).test}
            self._key = key
        if not self._files:
            raise DataError(f"{data} holds no test case")
        for name in chosen or ():
            if name not in self._files:
                raise DataError(f"{data} holds no test case {name}")
        return tuple(chosen or in_hash_order(self._files, spec.digest()))

    def load(self, name: str, spec: TaskSpec) -> LabelledCase:
        """One case of the set that is open; DataError where it cannot be used.

        MemoryError where this machine cannot hold what the largest case takes.
        """
        test = self._cases.get(name)
        if test is None:
            with memory_limit(_PREPARING_BYTES):
                test = self._prepared(name, spec)
            size = test.image.nbytes + test.label.nbytes
            if self._cached_bytes + size <= _CACHE_BYTES:
                self._cases[name] = test
                self._cached_bytes += size
        return test

    def _prepared(self, name: str, spec: TaskSpec) -> LabelledCase:
        case = load_case(self._files[name], len(spec.labels))
        if case.label is None:
            raise DataError(f"test case {name} has no label")
        sizes = np.bincount(case.label.ravel(), minlength=len(spec.labels))
        true = tuple(int(size) for size in sizes[1:])
        return LabelledCase(name, prepare(case, spec), case.label, true)


class Tally:
    """Counts of one case as its slabs come; ``keep``: the labels too."""

    def __init__(self, test: LabelledCase, *, keep: bool) -> None:
        self._test = test
        self._seen: list[Counts] = [(0, 0, 0)] * len(test.true)
        self.labels: Label | None = np.empty(test.shape, dtype=np.uint8) if keep else None

    def add(self, slab: Slab) -> None:
        """Count one more slab."""
        truth = self._test.label[slab.where]
        found = case_counts(slab.labels, truth, len(self._test.true) + 1)
        self._seen = [
            (old[0] + new[0], old[1] + new[1], old[2] + new[2])
            for old, new in zip(self._seen, found, strict=True)
        ]
        if self.labels is not None:
            self.labels[slab.where] = slab.labels

    def counts(self) -> tuple[Counts, ...]:
        """(TP, FP, FN) of each foreground label, of what came so far."""
        return tuple(self._seen)

    def at_best(self) -> tuple[Counts, ...]:
        """The counts, were all that is still to come perfect."""
        seen_true = (hits + missed for hits, _, missed in self._seen)
        rest = [true - seen for true, seen in zip(self._test.true, seen_true, strict=True)]
        return at_best(self._seen, rest)
