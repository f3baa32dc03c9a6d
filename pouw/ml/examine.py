"""Going over every case of a folder once: what is there, what is wrong with it, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pouw.errors import DataError
from pouw.hashing import sha256
from pouw.ml.bare import left_out
from pouw.ml.fingerprint import CaseFacts, Fingerprint, facts_of, fingerprint_of
from pouw.ml.images import NIFTI
from pouw.ml.layout import CaseFile
from pouw.ml.readers.source import Source
from pouw.ml.split import patients_of

Progress = Callable[[int, int], object]
"""Called with how many cases were looked at and how many there are."""

_FEWEST: Final = 3
_MOST_FOREGROUND: Final = 60  # percent


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found in a folder; it can be published where there are no ``problems``.

    ``facts``: of every case that could be read, by its images; ``fingerprint``: of all together.
    """

    source: Source
    problems: tuple[DataError, ...]
    remarks: tuple[str, ...]
    facts: dict[tuple[Path, ...], CaseFacts]
    fingerprint: Fingerprint | None

    def fingerprint_of(self, cases: Sequence[CaseFile]) -> Fingerprint:
        """The fingerprint of some of the cases of a folder without problems."""
        return fingerprint_of([self.facts[case.images] for case in cases])

    @property
    def shares(self) -> str:
        """Every label with its share of all labelled voxels, in words."""
        voxels = self.fingerprint.voxels if self.fingerprint else ()
        whole = max(1, sum(voxels))
        named = zip(self.source.dataset.labels, voxels, strict=False)
        return ", ".join(f"{name} ({100 * count / whole:.3g} %)" for name, count in named)

    def usable(self) -> Fingerprint:
        """The fingerprint of a folder without problems; else the first problem is raised."""
        if self.problems:
            raise DataError(
                f"{self.problems[0]} ({len(self.problems)} problem(s) in all)",
                hint=f"`pouw data check {self.source.dataset.root}` lists them",
            ) from self.problems[0]
        assert self.fingerprint is not None
        return self.fingerprint


def examine(source: Source, progress: Progress | None = None) -> Examination:
    """Decode every case of ``source`` once and say what is wrong with it."""
    dataset = source.dataset
    cases = (*dataset.train, *dataset.test)
    problems = list(source.problems)
    remarks = list(source.remarks)
    facts: dict[tuple[Path, ...], CaseFacts] = {}
    full: list[str] = []
    seen: dict[bytes, str] = {}
    texts: dict[Path, tuple[str, ...]] = {}
    for number, file in enumerate(cases, start=1):
        try:
            one = _examine_case(source, file, seen, remarks)
            facts[file.images] = one
            full += [file.name] * one.full
            texts |= _texts(file)
        except DataError as error:
            problems.append(error)
        if progress:
            progress(number, len(cases))
    labelled = sum(case.label is not None for case in cases)
    if labelled < _FEWEST:
        hint = "two to train on (one of them to validate), one to test"
        problems.append(
            DataError(f"{labelled} labelled case(s), at least {_FEWEST} are needed", hint=hint)
        )
    found = fingerprint_of(list(facts.values())) if facts else None
    if found is not None:
        if not any(found.voxels[1:]):
            problems.append(DataError(f"{dataset.root}: no case has any foreground"))
        elif not found.voxels[0]:
            hint = "0 is the background: were masks inverted, or coded 1 and 2, not 0 and 1?"
            problems.append(DataError(f"{dataset.root}: no case has any background", hint=hint))
        elif full:
            remarks.append(
                f"the whole image is foreground in {len(full)} of {labelled} labelled cases, "
                f"{full[0]} the first"
            )
        remarks += _remarks(source, found)
    if texts:
        fields = ", ".join(dict.fromkeys(field for own in texts.values() for field in own))
        remarks.append(
            f"{fields} of {len(texts)} NIfTI file(s) hold text and are left out; "
            f"{next(iter(texts)).relative_to(dataset.root)} is the first"
        )
    return Examination(source, tuple(problems), tuple(remarks), facts, found)


def _examine_case(
    source: Source, file: CaseFile, seen: dict[bytes, str], remarks: list[str]
) -> CaseFacts:
    dataset = source.dataset
    case = source.decode(file)
    if len(case.image) != len(dataset.channels):
        raise DataError(
            f"{file.images[0]}: {len(case.image)} channel(s), the data set has "
            f"{len(dataset.channels)} ({', '.join(dataset.channels)})",
            hint="convert all images to one kind",
        )
    digest = sha256(case.image.tobytes())
    if digest in seen:
        remarks.append(f"{file.name} is the same image as {seen[digest]}")
    seen.setdefault(digest, file.name)
    return facts_of(case, len(dataset.labels))


def _texts(file: CaseFile) -> dict[Path, tuple[str, ...]]:
    """What is not published of the NIfTI files of a case."""
    paths = (*file.images, *([file.label] if file.label else []))
    found = {path: left_out(path) for path in paths if path.name.endswith(NIFTI)}
    return {path: texts for path, texts in found.items() if texts}


def _remarks(source: Source, found: Fingerprint) -> list[str]:
    dataset = source.dataset
    lines = [
        f"label {name!r} occurs in no case"
        for name, voxels in zip(dataset.labels[1:], found.voxels[1:], strict=True)
        if not voxels and any(found.voxels[1:])
    ]
    whole = sum(found.voxels)
    if whole and (share := 100 * (whole - found.voxels[0]) / whole) > _MOST_FOREGROUND:
        lines.append(f"{share:.3g} % of all voxels are foreground: were masks inverted?")
    if len(set(found.spacings_um)) > 1:
        low, high = (
            tuple(pick(axis) / 1000 for axis in zip(*found.spacings_um, strict=True))
            for pick in (min, max)
        )
        lines.append(f"voxels differ between cases, from {low} to {high} mm")
    cases = (*dataset.train, *dataset.test)
    patients = set(patients_of(cases).values()) if cases else set()
    if len(patients) < len(cases):
        lines.append(f"{len(patients)} patients in {len(cases)} cases; a split keeps them together")
    return lines
