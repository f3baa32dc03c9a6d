from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import image_folders as folders
import nibabel
import numpy as np
import pytest
from PIL import Image

from pouw.errors import DataError
from pouw.ml.data import load_case, read_dataset
from pouw.ml.examine import Examination, examine
from pouw.ml.readers import read_folder
from pouw.ml.readers.rasters import read_mask, read_pixels
from pouw.ml.split import divide, write_split

DATA = Path(os.environ.get("POUW_DATA", "../shared/data"))


@pytest.fixture(scope="module")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the brain that all folders are cut from lies."""
    return tmp_path_factory.mktemp("brain")


@pytest.fixture
def parts(source_folder: Path) -> list[folders.Slice]:
    return folders.slices(source_folder, 6)


def test_read_folder__of_glas__has_its_two_test_sets_and_patients(
    tmp_path: Path, parts: list[folders.Slice]
) -> None:
    source = read_folder(folders.write_glas(tmp_path / "glas", parts))
    dataset = source.dataset
    assert source.format == "GlaS 2015 challenge"
    assert [case.name for case in dataset.train] == ["train_1", "train_2", "train_3", "train_4"]
    assert [case.name for case in dataset.test] == ["testA_1", "testB_1"]
    assert [case.patient for case in dataset.train] == ["1", "1", "2", "2"]
    assert dataset.channels == ("red", "green", "blue")
    case = source.decode(dataset.train[0])
    grey, mask = parts[0]
    assert np.array_equal(case.image[..., 0], folders.coloured(grey).transpose(2, 1, 0))
    assert case.label is not None
    assert np.array_equal(case.label[..., 0], (mask > 0).T)
    found = examine(source)
    assert not found.problems
    assert "3 patients in 6 cases; a split keeps them together" in found.remarks


def test_read_folder__of_mmwhs__numbers_the_structures(tmp_path: Path, source_folder: Path) -> None:
    root = folders.write_mmwhs(tmp_path / "whs" / "ct_train", source_folder).parent
    source = read_folder(root)
    assert (source.format, source.modality) == ("MM-WHS 2017 challenge", "CT")
    assert source.dataset.channels == ("CT",)
    assert source.dataset.labels[1] == "myocardium of the left ventricle"
    case = source.decode(source.dataset.train[1])
    assert case.label is not None
    stored = np.asarray(nibabel.load(source.dataset.train[1].label).dataobj)
    assert set(np.unique(stored)) == {0, 205, 850}
    assert np.array_equal(case.label == 1, stored == 205)
    assert np.array_equal(case.label == 7, stored == 850)
    assert case.spacing_um == (500, 500, 600)
    found = examine(source)
    assert "label 'left atrium' occurs in no case" in found.remarks


def test_read_folder__of_mmwhs_with_both_modalities__asks_for_one(
    tmp_path: Path, source_folder: Path
) -> None:
    for modality in ("ct", "mr"):
        folders.write_mmwhs(tmp_path / f"{modality}_train", source_folder, modality, 1)
    with pytest.raises(DataError, match="both CT and MR"):
        read_folder(tmp_path)
    assert read_folder(tmp_path / "mr_train").modality == "MR"


def test_decode__of_mmwhs_with_another_value__names_it(tmp_path: Path, source_folder: Path) -> None:
    root = folders.write_mmwhs(tmp_path, source_folder)
    label = root / "ct_train_1001_label.nii.gz"
    voxels = np.asarray(nibabel.load(label).dataobj).copy()
    voxels[0, 0, 0] = 421  # known to occur in the published files
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), label)
    source = read_folder(root)
    case = source.decode(source.dataset.train[0])
    assert case.label is not None
    assert case.label[0, 0, 0] == 2
    voxels[0, 0, 0] = 999
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), label)
    with pytest.raises(DataError, match=r"1001_label.*label values 999"):
        source.decode(source.dataset.train[0])


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("colour", [True, False])
def test_read_folder__of_images_and_masks__takes_objects_as_foreground(
    tmp_path: Path, parts: list[folders.Slice], ending: str, colour: bool
) -> None:
    source = read_folder(folders.write_masks(tmp_path, parts, ending, colour=colour))
    assert source.dataset.channels == (("red", "green", "blue") if colour else ("grey",))
    assert source.dataset.labels == ("background", "foreground")
    case = source.decode(source.dataset.train[2])
    grey, mask = parts[2]
    expected = folders.coloured(grey).transpose(2, 1, 0) if colour else grey.T[np.newaxis]
    assert np.array_equal(case.image[..., 0], expected)
    assert case.label is not None
    assert np.array_equal(case.label[..., 0], (mask > 0).T)
    assert not examine(source).problems


def test_read_folder__with_dataset_json__takes_mask_values_as_labels(
    tmp_path: Path, parts: list[folders.Slice]
) -> None:
    folders.write_masks(tmp_path, parts, ".bmp", colour=True)
    names = {"background": 0, **{f"piece {n}": n for n in range(1, 7)}}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    source = read_folder(tmp_path)
    case = source.decode(source.dataset.train[0])
    assert case.label is not None
    assert np.array_equal(case.label[..., 0], parts[0][1].T)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1}}))
    short = read_folder(tmp_path)
    with pytest.raises(DataError, match=r"labels 0 to \d, 2 are named"):
        short.decode(short.dataset.train[0])


def test_read_pixels__of_a_tiff_with_pages__is_a_volume(
    tmp_path: Path, parts: list[folders.Slice]
) -> None:
    pages = [Image.fromarray(grey) for grey, _ in parts]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    volume = read_pixels(tmp_path / "x.tif")
    assert np.array_equal(volume[0], np.stack([grey.T for grey, _ in parts], axis=-1))
    pages[1].resize((8, 8)).save(tmp_path / "y.tif")
    pages[0].save(tmp_path / "z.tif", save_all=True, append_images=[Image.open(tmp_path / "y.tif")])
    with pytest.raises(DataError, match="pages differ"):
        read_pixels(tmp_path / "z.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "I;16", "I", "F", "CMYK"])
def test_read_pixels__of_any_kind__has_one_or_three_channels(
    tmp_path: Path, parts: list[folders.Slice], mode: str
) -> None:
    colour = Image.fromarray(folders.coloured(parts[0][0]))
    image = colour.convert("I").convert("I;16") if mode == "I;16" else colour.convert(mode)
    path = tmp_path / "x.tif"
    image.save(path)
    pixels = read_pixels(path)
    assert pixels.shape == (3 if mode in ("RGBA", "P", "CMYK") else 1, 64, 48, 1)
    if mode == "RGBA":
        assert np.array_equal(pixels[..., 0], np.asarray(colour).transpose(2, 1, 0))


def test_read_mask__of_a_palette_or_colours__is_where_there_is_an_object(
    tmp_path: Path, parts: list[folders.Slice]
) -> None:
    mask = parts[0][1]
    indexed = Image.fromarray(mask, "L").convert("P")
    indexed.putpalette([7] * 768)  # all of one colour: only the indices tell
    indexed.save(tmp_path / "p.png")
    assert np.array_equal(read_mask(tmp_path / "p.png")[..., 0], mask.T)
    coloured = np.stack([0 * mask, mask * 9, 0 * mask], axis=-1)
    Image.fromarray(coloured).save(tmp_path / "c.png")
    assert np.array_equal(read_mask(tmp_path / "c.png")[..., 0], (mask > 0).T)
    Image.fromarray((mask / 2).astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match="not integers"):
        read_mask(tmp_path / "f.tif")


def png_of(width: int, height: int) -> bytes:
    """A PNG of that size in a few bytes: what a decoder would spend gigabytes on."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(width + 1, 1 << 16) * 64), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png_of(4097, 8), "4097 x 8 pixels, at most 4096"),
        (png_of(11_000, 11_000), "pixels, at most 4096"),
        (png_of(60_000, 60_000), "hundreds of millions of pixels"),
        (png_of(64, 64)[:60], "not a readable image"),
        (b"", "not a readable image"),
        (b"GIF89a" + bytes(100), "not a readable image"),
    ],
    ids=["wide", "large", "bomb", "cut", "empty", "gif"],
)
def test_read_pixels__of_a_hostile_file__is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_pixels(path)
    assert "x.png" in str(caught.value)


def test_read_pixels__of_damaged_files__raises_nothing_but_data_errors(
    tmp_path: Path, parts: list[folders.Slice]
) -> None:
    random = np.random.default_rng(7)
    for ending in (".png", ".tif", ".bmp", ".jpg"):
        path = tmp_path / f"x{ending}"
        Image.fromarray(folders.coloured(parts[0][0])).save(path)
        whole = path.read_bytes()
        for _ in range(100):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(256)
            path.write_bytes(data[: random.integers(1, len(data) + 1)])
            try:
                assert len(read_pixels(path)) in (1, 3)
            except DataError:
                continue


def write_nan(root: Path) -> None:
    voxels = np.full((32, 32, 4), np.nan, np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), root / "ct_train_1002_image.nii.gz")


def write_small_label(root: Path) -> None:
    voxels = np.zeros((32, 32, 3), np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), root / "ct_train_1002_label.nii.gz")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write_nan, "not finite"),
        (write_small_label, "its image has"),
        (lambda root: (root / "ct_train_1002_label.nii.gz").unlink(), "1002 has no label"),
        (lambda root: (root / "ct_train_1002_image.nii.gz").write_bytes(b"x"), "1002_image"),
    ],
)
def test_examine__of_a_damaged_folder__names_the_file_and_goes_on(
    tmp_path: Path, source_folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    root = folders.write_mmwhs(tmp_path, source_folder, cases=4)
    damage(root)
    seen: list[tuple[int, int]] = []
    found = examine(read_folder(root), lambda done, total: seen.append((done, total)))
    (problem,) = found.problems
    assert message in str(problem)
    assert "1002" in str(problem)
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert found.fingerprint is not None
    with pytest.raises(DataError, match="1002"):
        found.usable()


def test_examine__of_images_of_two_kinds_or_without_masks__lists_every_problem(
    tmp_path: Path, parts: list[folders.Slice]
) -> None:
    folders.write_masks(tmp_path, parts, ".png", colour=True)
    Image.fromarray(parts[3][0]).save(tmp_path / "images" / "s3.png")
    Image.fromarray(parts[0][0]).save(tmp_path / "images" / "s9.png")
    (tmp_path / "masks" / "s4.png").unlink()
    (tmp_path / "images" / "notes.txt").write_text("x")
    Image.fromarray(parts[5][1][:9]).save(tmp_path / "masks" / "s5.png")
    (tmp_path / "images" / "-x.png").write_bytes((tmp_path / "images" / "s0.png").read_bytes())
    found = examine(read_folder(tmp_path))
    text = "\n".join(map(str, found.problems))
    for expected in (
        "s3.png: 1 channel(s), the data set has 3",
        "s9.png: no mask",
        "s4.png: no mask",
        "notes.txt: not a file of",
        "s5.png: shape",
        "cannot name a case",
    ):
        assert expected in text
    assert len(found.problems) == 6


def test_examine__of_the_same_image_twice_or_no_foreground__says_so(
    tmp_path: Path, parts: list[folders.Slice]
) -> None:
    empty = [(parts[0][0], np.zeros_like(parts[0][1]))] * 3
    found = examine(read_folder(folders.write_masks(tmp_path, empty, ".png", colour=False)))
    assert any("no case has any foreground" in str(problem) for problem in found.problems)
    assert "s1 is the same image as s0" in found.remarks


def test_examine__of_cases_without_background__is_a_problem_where_all_are(
    tmp_path: Path, parts: list[folders.Slice]
) -> None:
    def examined(name: str, full: int) -> Examination:
        made = [(image, mask + (at < full)) for at, (image, mask) in enumerate(parts)]
        return examine(read_folder(folders.write_masks(tmp_path / name, made, ".png", colour=True)))

    some, every = examined("some", 2), examined("every", len(parts))
    assert not some.problems
    assert [one for one in some.remarks if "foreground" in one and "case" in one] == [
        "the whole image is foreground in 2 of 6 labelled cases, s0 the first"
    ]
    (problem,) = every.problems
    assert "no case has any background" in str(problem)
    assert (
        problem.hint == "0 is the background: were masks inverted, or coded 1 and 2, not 0 and 1?"
    )
    assert not any("whole image" in one for one in every.remarks)


def test_read_folder__of_something_else__lists_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"DICM")
    with pytest.raises(DataError, match="not a data set of a known kind") as caught:
        read_folder(tmp_path)
    assert caught.value.hint is not None
    assert "GlaS" in caught.value.hint


def test_write_split__of_colour_images__gives_the_same_case_as_nifti(
    tmp_path: Path, parts: list[folders.Slice]
) -> None:
    source = read_folder(folders.write_glas(tmp_path / "glas", parts))
    split = divide(source.dataset, 250_000, "s")
    write_split(source, split, (tmp_path / "tr", tmp_path / "ts"))
    written = read_dataset(tmp_path / "ts")
    assert written.channels == ("red", "green", "blue")
    assert [case.name for case in written.test] == ["testA_1", "testB_1"]
    for file, original in zip(written.test, split.test, strict=True):
        case, expected = load_case(file, 2), source.decode(original)
        assert np.array_equal(case.image, expected.image)
        assert case.label is not None
        assert expected.label is not None
        assert np.array_equal(case.label, expected.label)
        stored = nibabel.load(file.images[0]).get_data_dtype()
        assert stored == np.uint8  # no larger than what it was


def test_write_split__twice__writes_the_same_bytes(
    tmp_path: Path, parts: list[folders.Slice]
) -> None:
    source = read_folder(folders.write_masks(tmp_path / "all", parts, ".png", colour=True))
    contents = []
    for name in ("a", "b"):
        split = divide(source.dataset, 250_000, "seed")
        write_split(source, split, (tmp_path / name, tmp_path / name))
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([(path.relative_to(tmp_path / name), path.read_bytes()) for path in files])
    assert contents[0] == contents[1]


@pytest.mark.skipif(
    not (DATA / "nuclei-he").is_dir(), reason="POUW_DATA names no folder with nuclei-he/"
)
def test_examine__of_real_histology__finds_nothing_wrong() -> None:
    found = examine(read_folder(DATA / "nuclei-he"))
    assert not found.problems
    assert len(found.source.dataset.train) == 86
    assert found.usable().median_shape == (320, 256, 1)
