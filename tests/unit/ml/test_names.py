"""Cases that strangers see are called by numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pouw.errors import DataError
from pouw.ml.layout import CaseFile, Dataset
from pouw.ml.names import without_names
from pouw.ml.split import patients_of

LABEL = Path("label.nii.gz")


def cases(*names: str, patient: str | None = None) -> tuple[CaseFile, ...]:
    return tuple(CaseFile(name, (Path(f"{name}.nii.gz"),), LABEL, patient) for name in names)


def dataset(train: tuple[CaseFile, ...], test: tuple[CaseFile, ...] = ()) -> Dataset:
    return Dataset(Path(), ("c",), ("background", "a"), train, test)


def groups(named: dict[str, str]) -> set[frozenset[str]]:
    return {
        frozenset(name for name, patient in named.items() if patient == one)
        for one in named.values()
    }


def test_without_names__patients_of_several_cases__stay_together() -> None:
    train = cases("Mueller_slice_1", "Mueller_slice_2", "Meier_left", "Meier_right", "Schmidt")
    graded = cases("g1", "g2", patient="7")
    found = without_names(dataset((*train, *graded), cases("Mueller_slice_9")))
    renamed = (*found.dataset.train, *found.dataset.test)
    assert all(re.fullmatch(r"sub-00[1-4](_[1-3])?", case.name) for case in renamed)
    assert len({case.name for case in renamed}) == 8
    assert [case.name for case in found.dataset.train] == sorted(
        case.name for case in found.dataset.train
    )
    assert all(case.patient is None for case in renamed)
    for case in renamed:
        assert case.images == (Path(f"{found.names[case.name]}.nii.gz"),)
    before = patients_of((*train, *graded, *cases("Mueller_slice_9")))
    after = {found.names[name]: one for name, one in patients_of(renamed).items()}
    assert groups(after) == groups(before)


def test_without_names__names_that_tell_no_patient__are_one_each() -> None:
    found = without_names(dataset(cases("x_tile_1", "x_tile_2", "x_tile_3")))
    assert sorted(found.names) == ["sub-001", "sub-002", "sub-003"]
    assert len(set(patients_of(found.dataset.train).values())) == 3


def test_without_names__twice__numbers_differ() -> None:
    many = dataset(cases(*(f"case{number:03d}" for number in range(50))))
    orders = {tuple(without_names(many).names.values()) for _ in range(3)}
    assert len(orders) == 3


def test_without_names__unlabelled_test_cases__are_left_out() -> None:
    lone = (CaseFile("t", (Path("t.nii.gz"),), None),)
    found = without_names(dataset(cases("a", "b"), lone))
    assert found.dataset.test == ()
    assert sorted(found.names.values()) == ["a", "b"]


def test_without_names__case_that_is_on_both_sides__is_refused() -> None:
    with pytest.raises(DataError, match="b is a training and a test case"):
        without_names(dataset(cases("a", "b"), cases("b")))
