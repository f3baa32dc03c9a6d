"""Folders of images and masks as people save them: what is wrong with a mask is said in words."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pouw.errors import DataError
from pouw.ml.examine import Examination, examine
from pouw.ml.readers import read_folder
from pouw.ml.readers.rasters import read_mask

Mask = NDArray[np.uint8]


def disc(radius: int = 30, height: int = 255) -> Mask:
    y, x = np.mgrid[:128, :128]
    return (height * ((y - 60) ** 2 + (x - 70) ** 2 < radius**2)).astype(np.uint8)


def cells(count: int, ground: int = 0) -> Mask:
    """That many numbered discs."""
    random = np.random.default_rng(2)
    y, x = np.mgrid[:256, :256]
    mask = np.full((256, 256), ground, np.uint8)
    for number, (a, b) in enumerate(random.integers(8, 248, (count, 2)), start=1):
        mask[(y - a) ** 2 + (x - b) ** 2 < 50] = number
    return mask


def by_jpeg(mask: Mask, quality: int) -> Mask:
    """The mask after somebody saved it as JPEG once."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def write(root: Path, mask: Mask, count: int = 4) -> Path:
    random = np.random.default_rng(1)
    for number in range(count):
        image = random.integers(0, 255, mask.shape[:2], np.uint8)
        for folder, pixels in (("images", image), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"s{number}.png")
    return root


def examined(root: Path) -> Examination:
    return examine(read_folder(root))


@pytest.mark.parametrize("height", [255, 128])
@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95])
@pytest.mark.parametrize("colour", [False, True])
def test_examine__masks_that_were_jpeg_once__are_a_problem_each(
    tmp_path: Path, quality: int, height: int, colour: bool
) -> None:
    clean = disc(height=height)
    mask = by_jpeg(np.stack([clean] * 3, axis=-1) if colour else clean, quality)
    found = examined(write(tmp_path, mask))
    assert len(found.problems) == 4
    problem = found.problems[0]
    assert "s0.png: values near 0 and near its maximum" in str(problem)
    assert "JPEG" in str(problem)
    assert problem.hint is not None
    assert "half" in problem.hint


@pytest.mark.parametrize("count", [1, 3, 40, 70, 255])
@pytest.mark.parametrize("ground", [0, 1])
def test_read_mask__that_numbers_objects__is_read_as_it_is(
    tmp_path: Path, count: int, ground: int
) -> None:
    mask = cells(count, ground)
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", objects=True)[..., 0], mask.T)


def test_read_mask__of_two_or_few_values__is_read_as_it_is(tmp_path: Path) -> None:
    for values in ((255,), (1,), (30, 200, 255), (38, 75, 113, 150)):
        mask = np.zeros((32, 32), np.uint8)
        for number, value in enumerate(values):
            mask[4 * number : 4 * number + 4] = value
        Image.fromarray(mask).save(tmp_path / "m.png")
        assert np.array_equal(read_mask(tmp_path / "m.png", objects=True)[..., 0], mask.T)


def test_read_mask__of_values_that_are_no_numbers__is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match="not integers"):
        read_mask(tmp_path / "m.tif", objects=True)


def test_examine__foreground_nearly_everywhere__says_so(tmp_path: Path) -> None:
    most = examined(write(tmp_path / "most", 255 - disc()))
    assert not most.problems
    share = 100 * (disc() == 0).mean()
    assert f"{share:.3g} % of all voxels are foreground: were masks inverted?" in most.remarks
    assert most.shares == f"background ({100 - share:.3g} %), foreground ({share:.3g} %)"
    usual = examined(write(tmp_path / "usual", disc()))
    assert not any("inverted" in line for line in usual.remarks)


def test_read_folder__all_names_with_umlauts__are_listed_with_what_a_name_may_hold(
    tmp_path: Path,
) -> None:
    root = write(tmp_path, disc())
    for path in [*root.glob("images/*"), *root.glob("masks/*")]:
        path.rename(path.with_name(f"Lösung{path.stem}.png"))
    found = examined(root)
    text = "\n".join(map(str, found.problems))
    for number in range(4):
        assert f"images/Lösungs{number}.png' cannot name a case" in text
        assert f"masks/Lösungs{number}.png' cannot name a case" in text
    hint = found.problems[0].hint
    assert hint is not None
    assert "a to z" in hint
    assert "umlaut" in hint


def test_read_folder__nifti_whose_names_all_have_umlauts__says_so(tmp_path: Path) -> None:
    for number in range(3):
        for folder in ("imagesTr", "labelsTr"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"Müller{number}.nii.gz").write_bytes(b"x")
    (tmp_path / "dataset.json").write_text(
        '{"modality": {"0": "CT"}, "labels": {"0": "background", "1": "a"}}'
    )
    with pytest.raises(
        DataError, match=r"Müller0\.nii\.gz' cannot name a case \(6 problem"
    ) as caught:
        read_folder(tmp_path)
    assert caught.value.hint is not None
    assert "umlaut" in caught.value.hint


def test_read_folder__files_that_windows_leaves__are_ignored(tmp_path: Path) -> None:
    root = write(tmp_path, disc())
    for name in ("Thumbs.db", "desktop.ini", "thumbs.db", "Desktop.ini"):
        (root / "images" / name).write_bytes(b"x")
        (root / "masks" / name).write_bytes(b"x")
    assert not examined(root).problems


def test_examine__masks_of_255_beside_a_dataset_json__says_how_to_code_them(
    tmp_path: Path,
) -> None:
    root = write(tmp_path, disc())
    (root / "dataset.json").write_text('{"labels": {"background": 0, "tumour": 1}}')
    problem = examined(root).problems[0]
    assert "s0.png: labels 0 to 255, 2 are named" in str(problem)
    assert problem.hint is not None
    assert "0 and 255" in problem.hint
    assert "leave dataset.json out" in problem.hint


def test_examine__masks_as_jpeg__says_once_that_masks_may_not_be(tmp_path: Path) -> None:
    root = write(tmp_path, disc())
    for path in list(root.glob("masks/*")):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    found = examined(root)
    lines = [str(problem) for problem in found.problems if "JPEG" in str(problem)]
    assert lines == [f"{root / 'masks'}: masks may not be JPEG, which changes their values (4 are)"]
