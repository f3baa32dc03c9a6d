"""Names of cases that tell strangers nothing but which cases are one patient's.

Numbers are drawn anew each time, from no key that is ever opened: who knows the names and the key
could otherwise work out whose each case is.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from pouw.ml.layout import CaseFile, Dataset
from pouw.ml.split import patients_of, refuse_twins

_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Unnamed:
    """A data set whose cases have neutral names, and what each was called by its neutral name."""

    dataset: Dataset
    names: dict[str, str]


def without_names(dataset: Dataset) -> Unnamed:
    """The labelled cases of ``dataset`` as ``sub-001``, or ``sub-001_1``, ... of one patient.

    ``patients_of`` finds the same patients in both. DataError where a name occurs on both sides.
    """
    test = tuple(case for case in dataset.test if case.label is not None)
    refuse_twins(dataset.train, test)
    neutral = _neutral_names((*dataset.train, *test))
    renamed = replace(dataset, train=_renamed(dataset.train, neutral), test=_renamed(test, neutral))
    return Unnamed(renamed, {new: old for old, new in sorted(neutral.items(), key=lambda p: p[1])})


def _neutral_names(cases: tuple[CaseFile, ...]) -> dict[str, str]:
    random = secrets.SystemRandom()
    groups: dict[str, list[str]] = {}
    for name, patient in patients_of(cases).items():
        groups.setdefault(patient, []).append(name)
    patients = list(groups.values())
    random.shuffle(patients)
    digits = max(_DIGITS, len(str(len(patients))))
    neutral = {}
    for number, names in enumerate(patients, start=1):
        random.shuffle(names)
        for part, name in enumerate(names, start=1):
            ending = f"_{part}" if len(names) > 1 else ""
            neutral[name] = f"sub-{number:0{digits}d}{ending}"
    return neutral


def _renamed(cases: tuple[CaseFile, ...], neutral: dict[str, str]) -> tuple[CaseFile, ...]:
    renamed = (replace(case, name=neutral[case.name], patient=None) for case in cases)
    return tuple(sorted(renamed, key=lambda case: case.name))
