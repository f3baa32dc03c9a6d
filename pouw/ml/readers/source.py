"""A folder of images as it comes: what it is, what it holds, and how one of its cases is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pouw.errors import DataError
from pouw.ml.cases import Case
from pouw.ml.layout import CaseFile, Dataset


@dataclass(frozen=True, slots=True)
class Source:
    """A recognised folder.

    ``format`` names it in words; ``decode`` reads one case (DataError where it cannot be used);
    ``problems``: what is wrong with the listing, such as images without labels; ``remarks``: what a
    publisher should know; ``copies``: whether the files are NIfTI with final labels, so that they
    can be published as they are; ``modality`` where the format tells.
    """

    format: str
    dataset: Dataset
    decode: Callable[[CaseFile], Case]
    problems: tuple[DataError, ...] = ()
    remarks: tuple[str, ...] = ()
    copies: bool = False
    modality: str | None = None
