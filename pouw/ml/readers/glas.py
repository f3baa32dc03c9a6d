"""GlaS 2015: glands in colon histology (Sirinukunwattana et al., Medical Image Analysis 2017).

``train_1.bmp`` and ``train_1_anno.bmp``, ``testA_1.bmp``, ``testB_1.bmp`` and so on; an annotation
numbers the glands, so whatever is above 0 is gland. ``Grade.csv``, where it lies beside them, tells
whose tissue each image shows.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Final

from pouw.errors import DataError
from pouw.ml.cases import Case
from pouw.ml.layout import CaseFile, Dataset
from pouw.ml.readers.pairs import decode_pair
from pouw.ml.readers.source import Source

NAME: Final = "GlaS 2015 challenge"
_IMAGE: Final = re.compile(r"((train|testA|testB)_\d{1,4})\.bmp")
_ANNOTATION: Final = re.compile(r"((?:train|testA|testB)_\d{1,4})_anno\.bmp")
_MAX_TABLE_BYTES: Final = 1 << 20
_SPACING_UM: Final = (1, 1, 1)  # 0.62 um a pixel, which whole micrometres cannot say


def read(root: Path) -> Source | None:
    """The folder as a GlaS data set; None where it is something else."""
    names = {path.name: path for path in root.iterdir() if path.is_file()}
    annotations = {
        match[1]: names[name] for name in names if (match := _ANNOTATION.fullmatch(name))
    }
    images = {match[1]: names[name] for name in names if (match := _IMAGE.fullmatch(name))}
    if not annotations and not images:
        return None
    problems = [
        DataError(f"{images[name]}: no annotation {name}_anno.bmp")
        for name in sorted(set(images) - set(annotations))
    ]
    problems += [
        DataError(f"{annotations[name]}: annotates no image")
        for name in sorted(set(annotations) - set(images))
    ]
    patients = _patients(names.get("Grade.csv"))
    cases = [
        CaseFile(name, (images[name],), annotations[name], patients.get(name))
        for name in sorted(set(images) & set(annotations))
    ]
    dataset = Dataset(
        root,
        ("red", "green", "blue"),
        ("background", "gland"),
        tuple(case for case in cases if case.name.startswith("train")),
        tuple(case for case in cases if not case.name.startswith("train")),
    )
    return Source(NAME, dataset, decode, tuple(problems), modality="histology")


def decode(file: CaseFile) -> Case:
    """One image (3, X, Y, 1) with its glands as label 1."""
    return decode_pair(file, _SPACING_UM, objects=True)


def _patients(table: Path | None) -> dict[str, str]:
    """Image name to patient, from ``Grade.csv`` (columns ``name`` and ``patient ID``)."""
    if table is None or table.stat().st_size > _MAX_TABLE_BYTES:
        return {}
    text = table.read_text(encoding="utf-8-sig", errors="replace")
    try:
        rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
    except csv.Error as error:
        raise DataError(f"{table}: cannot be read: {error}") from error
    found = {}
    for row in rows:
        plain = {str(key).strip().lower(): str(value).strip() for key, value in row.items()}
        if plain.get("name") and plain.get("patient id"):
            found[plain["name"]] = plain["patient id"]
    return found
