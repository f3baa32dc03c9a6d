from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pouw.documents import InferenceRecipe, Window
from pouw.errors import DataError
from pouw.ml.data import (
    CaseFile,
    load_case,
    normalise,
    read_dataset,
    resample_image,
    resample_label,
    resampled_shape,
    split_validation,
)
from pouw.ml.examine import examine
from pouw.ml.preprocess import Shape
from pouw.ml.readers import read_folder
from pouw.ml.split import divide, held_out, patients_of, split_into, write_split

DATA = Path(os.environ.get("POUW_DATA", "../shared/data")) / "hippocampus"
SHAPE = (4, 5, 3)


def save(path: Path, voxels: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 2.0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0])), path)
    return path


def image_of(number: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(number).normal(100, 20, shape).astype(np.float32)


def label_of(number: int, labels: int = 3) -> np.ndarray:
    return np.random.default_rng(number).integers(0, labels, SHAPE).astype(np.uint8)


def describe(root: Path, **document: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(document))


def nnunet(root: Path, train: int = 3, test: int = 0, channels: int = 2) -> Path:
    describe(
        root,
        channel_names={str(c): f"c{c}" for c in range(channels)},
        labels={"background": 0, "a": 1, "b": 2},
        file_ending=".nii.gz",
    )
    for number in range(train + test):
        part = "Tr" if number < train else "Ts"
        for c in range(channels):
            save(root / f"images{part}" / f"n{number}_{c:04d}.nii.gz", image_of(10 * number + c))
        save(root / f"labels{part}" / f"n{number}.nii.gz", label_of(number))
    return root


def test_read_dataset__in_nnunet_layout__groups_channels_and_orders_labels(tmp_path: Path) -> None:
    dataset = read_dataset(nnunet(tmp_path, train=2, test=1))
    assert dataset.channels == ("c0", "c1")
    assert dataset.labels == ("background", "a", "b")
    assert [case.name for case in dataset.train] == ["n0", "n1"]
    assert [path.name for path in dataset.train[0].images] == ["n0_0000.nii.gz", "n0_0001.nii.gz"]
    case = load_case(dataset.test[0], 3)
    assert case.image.shape == (2, *SHAPE)
    assert case.image.dtype == np.float32
    assert np.array_equal(case.image[1], image_of(21))
    assert case.label is not None
    assert np.array_equal(case.label, label_of(2))
    assert case.spacing_um == (1000, 1000, 2000)


def test_read_dataset__in_msd_layout__takes_channels_from_the_fourth_axis(tmp_path: Path) -> None:
    describe(tmp_path, modality={"0": "T1", "1": "T2"}, labels={"0": "background", "1": "tumour"})
    four = np.stack([image_of(1), image_of(2)], axis=-1)
    save(tmp_path / "imagesTr" / "BRATS_001.nii.gz", four, (1.0, 1.0, 1.0))
    save(tmp_path / "labelsTr" / "BRATS_001.nii.gz", label_of(1, 2).astype(np.float32))
    (tmp_path / "imagesTr" / "._BRATS_001.nii.gz").write_bytes(b"macOS")
    dataset = read_dataset(tmp_path)
    assert (dataset.channels, dataset.labels) == (("T1", "T2"), ("background", "tumour"))
    case = load_case(dataset.train[0], 2)
    assert np.array_equal(case.image, np.stack([image_of(1), image_of(2)]))
    assert case.label is not None
    assert case.label.dtype == np.uint8


def test_read_dataset__without_dataset_json__infers_one_channel_and_the_labels(
    tmp_path: Path,
) -> None:
    save(tmp_path / "imagesTr" / "x.nii", image_of(1))
    save(tmp_path / "labelsTr" / "x.nii", label_of(1))
    dataset = read_dataset(tmp_path)
    assert dataset.channels == ("image",)
    assert dataset.labels == ("background", "label 1", "label 2")


def remove(path: str) -> Any:
    return lambda root: (root / path).unlink()


def document(**changes: Any) -> Any:
    def change(root: Path) -> None:
        old = json.loads((root / "dataset.json").read_text())
        describe(root, **{**old, **changes})

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("labelsTr/n1.nii.gz"), "no label for n1"),
        (remove("imagesTr/n1_0001.nii.gz"), r"n1 has channels \[0\]"),
        (lambda r: save(r / "imagesTr" / "odd.nii.gz", image_of(1)), "no channel suffix"),
        (lambda r: save(r / "labelsTr" / "more.nii.gz", label_of(1)), "labels no image"),
        (lambda r: (r / "imagesTr" / "n0.png").write_bytes(b""), "not a .nii.gz or .nii file"),
        (lambda r: (r / "dataset.json").write_text("{"), "cannot be read"),
        (lambda r: (r / "dataset.json").write_text("[" * 100_000), "cannot be read"),
        (lambda r: (r / "dataset.json").write_text(" " * (2 << 20)), "larger than"),
        (lambda r: (r / "dataset.json").write_text("[]"), "not a JSON object"),
        (document(channel_names={"0": "a", "2": "b"}), "numbered from 0"),
        (document(channel_names={}), "must name 1 to 16"),
        (document(labels={"background": 0, "a": 2}), "without a gap"),
        (document(labels={"background": 0, "whole": [1, 2]}), "is not one value"),
        (document(labels={"background": 0, "a": 1, "ignore": 2}), "is not one value"),
        (document(labels={"background": 0, "\x1b[2J": 1}), "cannot be a name"),
    ],
)
def test_read_dataset__of_a_folder_in_disorder__says_what_is_wrong(
    tmp_path: Path, damage: Any, message: str
) -> None:
    nnunet(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


def test_read_dataset__of_no_folder_or_an_empty_one__is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder") as caught:
        read_dataset(tmp_path / "none")
    assert caught.value.hint is not None
    with pytest.raises(DataError):
        read_dataset(tmp_path)


def header_of(**fields: Any) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_shape(SHAPE)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    for name, value in fields.items():
        header[name] = value
    return bytes(header.structarr.tobytes())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image", "not a gzip|cannot be read"),
        (gzip.compress(b"short", mtime=0), "not a single-file NIfTI-1"),
        (gzip.compress(header_of(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), mtime=0), "every axis"),
        (gzip.compress(header_of(dim=[3, 4096, 4096, 4096, 1, 1, 1, 1]), mtime=0), "passes"),
        (gzip.compress(header_of(dim=[3, -4, 5, 3, 1, 1, 1, 1]), mtime=0), "every axis"),
        (gzip.compress(header_of(dim=[4, 4, 5, 3, 99, 1, 1, 1]), mtime=0), "99 channels"),
        (gzip.compress(header_of(dim=[5, 4, 5, 3, 2, 2, 1, 1]), mtime=0), "axes"),
        (gzip.compress(header_of(dim=[9, 4, 5, 3, 1, 1, 1, 1]), mtime=0), "axes|type"),
        (gzip.compress(header_of(datatype=128), mtime=0), "NIfTI type 128"),
        (gzip.compress(header_of(vox_offset=1e9), mtime=0), "voxels begin"),
        (gzip.compress(header_of(vox_offset=np.nan), mtime=0), "voxels begin"),
        (gzip.compress(header_of(pixdim=[1, 0, 1, 1, 0, 0, 0, 0]), mtime=0), "spacing"),
        (gzip.compress(header_of(pixdim=[1, np.inf, 1, 1, 0, 0, 0, 0]), mtime=0), "spacing"),
        (gzip.compress(header_of() + bytes(4 + 10), mtime=0), "bytes of voxels"),
    ],
)
def test_load_case__of_a_hostile_header__is_refused_before_decoding(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_case(CaseFile("x", (path,), None), 2)
    assert "x.nii.gz" in str(caught.value)


def test_load_case__of_a_gzip_bomb__reads_no_more_than_announced(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    voxels = np.arange(60, dtype=np.float32).reshape(SHAPE, order="F")
    content = header_of() + bytes(4) + voxels.tobytes(order="F") + bytes(256 << 20)
    path.write_bytes(gzip.compress(content, 1))
    case = load_case(CaseFile("x", (path,), None), 2)
    assert np.array_equal(case.image[0], voxels)


def test_load_case__of_a_damaged_gzip__is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.nii.gz", image_of(1))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # inside the CRC
    path.write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        load_case(CaseFile("x", (path,), None), 2)


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8", "u2", ">i2", ">f4"])
def test_load_case__of_any_stored_type__equals_nibabel(tmp_path: Path, kind: str) -> None:
    voxels = np.random.default_rng(1).integers(0, 200, SHAPE).astype(kind)
    header = nibabel.Nifti1Header(endianness=">" if kind[0] == ">" else "<")
    image = nibabel.Nifti1Image(voxels, np.eye(4), header)
    image.header.set_slope_inter(0.5, -3)
    path = tmp_path / "x.nii.gz"
    nibabel.save(image, path)
    ours = load_case(CaseFile("x", (path,), None), 2).image[0]
    assert np.array_equal(ours, np.asarray(nibabel.load(path).dataobj).astype(np.float32))


def test_load_case__of_a_2d_image__has_one_slice_of_1_mm(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    header = header_of(dim=[2, 4, 5, 0, 0, 0, 0, 0], pixdim=[1, 2, 2, 0, 0, 0, 0, 0])
    path.write_bytes(header + bytes(4) + np.ones(20, np.float32).tobytes())
    case = load_case(CaseFile("x", (path,), None), 2)
    assert case.image.shape == (1, 4, 5, 1)
    assert case.spacing_um == (2000, 2000, 1000)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (image_of(1), label_of(1)[:, :, :2], "its image has"),
        (image_of(1), label_of(1, 4), "3 are named"),
        (image_of(1), label_of(1).astype(np.int16) - 1, "3 are named"),
        (image_of(1), label_of(1).astype(np.float32) / 2, "not integers"),
        (image_of(1), np.full(SHAPE, np.nan, np.float32), "not finite"),
        (np.full(SHAPE, np.inf, np.float32), label_of(1), "not finite"),
        (np.full(SHAPE, 1e300), label_of(1), "beyond float32"),
    ],
)
def test_load_case__of_images_and_labels_that_do_not_fit__names_the_file(
    tmp_path: Path, image: np.ndarray, label: np.ndarray, message: str
) -> None:
    case = CaseFile(
        "x", (save(tmp_path / "image.nii", image),), save(tmp_path / "label.nii", label)
    )
    with pytest.raises(DataError, match=message) as caught:
        load_case(case, 3)
    assert str(tmp_path) in str(caught.value)


def test_load_case__of_channels_on_different_grids__is_refused(tmp_path: Path) -> None:
    a = save(tmp_path / "a.nii", image_of(1))
    b = save(tmp_path / "b.nii", image_of(2), (1.0, 1.0, 1.0))
    with pytest.raises(DataError, match="grid differs"):
        load_case(CaseFile("x", (a, b), None), 2)


def recipe(normalisation: str, *windows: Window) -> InferenceRecipe:
    return InferenceRecipe.model_validate(
        {
            "spacing_um": (),
            "normalisation": normalisation,
            "windows": windows,
            "patch": (8, 8),
            "overlap_ppm": 0,
            "blending": "constant",
            "dtype": "float32",
            "ties": "lowest-label",
        }
    )


def test_normalise__zscore__makes_each_channel_standard() -> None:
    image = np.stack([image_of(1), 7 * image_of(2) + 3])
    result = normalise(image, recipe("zscore"))
    assert result.dtype == np.float32
    assert np.allclose(result.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    assert np.allclose(result.std(axis=(1, 2, 3)), 1, atol=1e-6)
    assert np.array_equal(result, normalise(image.copy(order="F"), recipe("zscore")))


def test_normalise__zscore_nonzero__leaves_zeros_alone() -> None:
    image = image_of(1)[np.newaxis].copy()
    image[0, :2] = 0
    result = normalise(image, recipe("zscore-nonzero"))
    assert not result[0, :2].any()
    assert result[0, 2:].mean() == pytest.approx(0, abs=1e-6)


def test_normalise__none_or_a_constant_channel__stays_finite() -> None:
    image = np.full((1, *SHAPE), 7, np.float32)
    assert np.array_equal(normalise(image, recipe("none")), image)
    assert not normalise(image, recipe("zscore")).any()
    assert not normalise(np.zeros_like(image), recipe("zscore-nonzero")).any()


def test_normalise__window__clips_and_scales_every_case_alike() -> None:
    window = Window(
        lower_milli=-100_000, upper_milli=300_500, mean_milli=40_000, deviation_milli=80
    )
    image = np.array([-1000.0, -100.0, 40.0, 300.5, 3000.0], np.float32).reshape(1, 5, 1, 1)
    result = normalise(image, recipe("window", window))
    assert np.allclose(result.ravel(), [-1750, -1750, 0, 3256.25, 3256.25])


def test_resampled_shape__covers_the_same_field_of_view() -> None:
    assert resampled_shape((10, 10, 5), (1000, 1000, 2000), (1000, 2000, 1000)) == (10, 5, 10)
    assert resampled_shape((1, 1, 1), (1000,) * 3, (10_000,) * 3) == (1, 1, 1)
    with pytest.raises(DataError, match="become"):
        resampled_shape((4096, 4096, 16), (1000,) * 3, (1,) * 3)


@pytest.mark.parametrize(
    ("shape", "spacing_um", "target_um", "channels"),
    [
        ((4, 4, 4), (645_000,) * 3, (4_000,) * 3, 16),  # 2^28 voxels, 16 GiB
        ((4, 4096, 4096), (10**9, 1000, 1000), (10**6, 10**9, 10**9), 1),  # large on the way only
    ],
)
def test_resampled_shape__more_bytes_than_an_image_may_have__is_refused(
    shape: Shape, spacing_um: Shape, target_um: Shape, channels: int
) -> None:
    with pytest.raises(DataError, match="um become"):
        resampled_shape(shape, spacing_um, target_um, channels)


def test_resampled_shape__as_many_bytes_as_an_image_may_have__is_taken() -> None:
    spacing = ((1000,) * 3, (500, 500, 1000))
    assert resampled_shape((512, 512, 16), *spacing, 16) == (1024, 1024, 16)


def test_resample_image__of_a_ramp__keeps_positions() -> None:
    ramp = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None], SHAPE)[np.newaxis]
    fine = resample_image(ramp, (8, 5, 3))
    assert fine[0, :, 0, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    assert np.array_equal(resample_image(ramp, SHAPE), ramp)


@pytest.mark.parametrize("size", [(9, 12), (2, 3), (3, 11), (1, 1)])
def test_resample_image__equals_torch_with_antialias(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    image = image_of(3, (7, 8, 2))[np.newaxis]
    stacked = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 3, 0)))
    reference = torch.nn.functional.interpolate(
        stacked, size=size, mode="bilinear", align_corners=False, antialias=True
    ).numpy()
    ours = resample_image(image, (*size, 2))
    assert np.allclose(ours, np.moveaxis(reference, 0, 3), rtol=1e-5)


def test_resample_image__of_a_pattern_finer_than_the_new_grid__averages_it() -> None:
    stripes = np.broadcast_to(np.tile([0.0, 1.0], 50)[:, None, None], (100, 4, 4))
    coarse = resample_image(stripes.astype(np.float32)[np.newaxis], (25, 4, 4))
    # Taking every fourth value instead would give stripes, or nothing but one of them.
    assert np.abs(coarse[0, 2:-2] - 0.5).max() < 0.01


@given(sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_resample_image__of_a_constant__is_that_constant(sizes: tuple[int, int]) -> None:
    old, new = sizes
    image = np.full((1, old, 1, 1), 7.0, np.float32)
    assert np.allclose(resample_image(image, (new, 1, 1)), 7.0, rtol=1e-6)


@given(factors=st.tuples(*[st.integers(1, 4)] * 3), number=st.integers(0, 100))
def test_resample_label__up_and_back__is_the_same_label(
    factors: tuple[int, int, int], number: int
) -> None:
    label = label_of(number)
    shape = tuple(size * factor for size, factor in zip(SHAPE, factors, strict=True))
    up = resample_label(label, (shape[0], shape[1], shape[2]))
    assert up.shape == shape
    assert np.array_equal(resample_label(up, SHAPE), label)


def cases_named(*names: str) -> list[CaseFile]:
    return [CaseFile(name, (Path(name),), None) for name in names]


@given(names=st.sets(st.text("abcdef0123", min_size=1), min_size=2, max_size=40))
def test_split_validation__of_any_names__is_a_partition_in_any_order(names: set[str]) -> None:
    ordered = cases_named(*sorted(names))
    train, validation = split_validation(ordered)
    assert train
    assert len(validation) == max(1, len(names) // 5)
    assert sorted(case.name for case in train + validation) == sorted(names)
    again = split_validation(ordered[::-1])
    assert {case.name for case in again[1]} == {case.name for case in validation}


def test_split_validation__of_known_names__never_changes() -> None:
    _, validation = split_validation(cases_named(*(f"case{i}" for i in range(10))))
    assert [case.name for case in validation] == ["case2", "case8"]


def test_split_validation__of_one_case_or_an_empty_side__is_refused() -> None:
    with pytest.raises(DataError, match="cannot be split"):
        split_validation(cases_named("one"))
    with pytest.raises(DataError, match="one side empty"):
        split_validation(cases_named("one", "two"), 0)


def divide_and_write(root: Path, out: Path, fraction_ppm: int, seed: str) -> tuple[int, int]:
    source = read_folder(root)
    split = divide(source.dataset, fraction_ppm, seed)
    write_split(source, split, (out / "tr", out / "ts"))
    return len(split.train), len(split.test)


def test_write_split__without_test_cases__holds_out_a_fraction_by_seed(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "all", train=6)
    dataset = read_dataset(root)
    assert divide_and_write(root, tmp_path / "s", 340_000, "s") == (4, 2)
    train, test = read_dataset(tmp_path / "s" / "tr"), read_dataset(tmp_path / "s" / "ts")
    assert (train.channels, train.labels) == (dataset.channels, dataset.labels)
    assert (len(train.train), len(train.test), len(test.train), len(test.test)) == (4, 0, 0, 2)
    names = {case.name for case in (*train.train, *test.test)}
    assert names == {case.name for case in dataset.train}
    for case in (*train.train, *test.test):
        original = next(file for file in dataset.train if file.name == case.name)
        written, read = load_case(case, 3), load_case(original, 3)
        assert np.array_equal(written.image, read.image)
        assert np.array_equal(written.label, read.label)
    others = {frozenset(c.name for c in divide(dataset, 340_000, seed).test) for seed in "tuvw"}
    assert len(others) > 1


def test_write_split__into_one_folder__is_a_data_set_that_keeps_its_test_set(
    tmp_path: Path,
) -> None:
    source = read_folder(nnunet(tmp_path / "all", train=6))
    split = divide(source.dataset, 340_000, "s")
    write_split(source, split, (tmp_path / "out", tmp_path / "out"))
    again = read_dataset(tmp_path / "out")
    assert {case.name for case in again.test} == {case.name for case in split.test}
    kept = divide(again, 340_000, "another seed")
    assert [case.name for case in kept.test] == [case.name for case in again.test]


def test_split_into__interrupted__leaves_nothing_and_is_done_again(tmp_path: Path) -> None:
    source = read_folder(nnunet(tmp_path / "all", train=4))
    split = divide(source.dataset, 340_000, "s")

    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split_into(source, split, tmp_path / "out", interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["all"]
    killed = tmp_path / ".out.part" / "imagesTr" / "old_0000.nii.gz"
    killed.parent.mkdir(parents=True)
    killed.write_bytes(b"half")
    (tmp_path / "out").mkdir()
    split_into(source, split, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "out"]
    assert len(read_dataset(tmp_path / "out").train) == 3


def test_divide__with_labelled_test_cases__uses_these(tmp_path: Path) -> None:
    dataset = read_dataset(nnunet(tmp_path, train=3, test=2))
    split = divide(dataset, 1, "s")
    assert [case.name for case in split.test] == ["n3", "n4"]
    assert len(split.train) == 3


def test_write_split__of_an_msd_file_with_channels__writes_one_file_for_each(
    tmp_path: Path,
) -> None:
    root = tmp_path / "all"
    describe(root, modality={"0": "T1", "1": "T2"}, labels={"0": "background", "1": "x"})
    for name in "abc":
        four = np.stack([image_of(1), image_of(2)], axis=-1)
        save(root / "imagesTr" / f"{name}.nii.gz", four, (1.0, 1.0, 2.0))
        save(root / "labelsTr" / f"{name}.nii.gz", label_of(1, 2))
    divide_and_write(root, tmp_path / "s", 300_000, "s")
    written = load_case(read_dataset(tmp_path / "s" / "ts").test[0], 2)
    original = load_case(read_dataset(root).train[0], 2)
    assert np.array_equal(written.image, original.image)
    assert written.spacing_um == original.spacing_um == (1000, 1000, 2000)


def test_divide__of_too_few_cases_or_into_a_full_folder__is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training case"):
        divide(read_dataset(nnunet(tmp_path / "two", train=2)), 500_000, "s")
    root = nnunet(tmp_path / "three")
    (tmp_path / "full" / "tr").mkdir(parents=True)
    (tmp_path / "full" / "tr" / "x").write_text("")
    with pytest.raises(DataError, match="not empty"):
        divide_and_write(root, tmp_path / "full", 300_000, "s")


def test_examine__of_headers_that_hold_text__says_that_it_is_left_out(tmp_path: Path) -> None:
    root = nnunet(tmp_path, train=4)
    assert not any("header" in line for line in examine(read_folder(root)).remarks)
    for path in (root / "imagesTr").glob("*_0001.nii.gz"):
        path.unlink()
    describe(root, modality={"0": "CT"}, labels={"0": "background", "1": "a", "2": "b"})
    for path in (root / "imagesTr").iterdir():  # now an image and its label have one name
        path.rename(path.with_name(path.name.replace("_0000", "")))
    path = root / "imagesTr" / "n2.nii.gz"
    image = nibabel.load(path)
    image.header["descrip"] = b"Mueller^Hans"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"1961-03-04"))
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    (line,) = (line for line in examine(read_folder(root)).remarks if "header" in line)
    assert line == (
        "descrip, header extensions of 1 NIfTI file(s) hold text and are left out; "
        "imagesTr/n2.nii.gz is the first"
    )


def test_examine__of_a_case_that_cannot_be_scored__is_a_problem(tmp_path: Path) -> None:
    root = nnunet(tmp_path, train=4)
    save(root / "labelsTr" / "n2.nii.gz", label_of(1, 9))
    found = examine(read_folder(root))
    with pytest.raises(DataError, match=r"n2\.nii\.gz"):
        found.usable()


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        (("sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_T1w"), ("sub-01", "sub-01", "sub-02")),
        (("patient001_frame01", "patient001_frame12", "patient002_frame01"), (1, 1, 2)),
        (("TCGA-18-5592-01Z", "TCGA-18-5592-02Z", "TCGA-38-6178-01Z"), (1, 1, 2)),
        (("a_slice_3", "a_slice_4", "b_slice_3"), ("a", "a", "b")),
        (("knee7_left", "knee7_right", "knee8_left"), ("knee7", "knee7", "knee8")),
        (("liver_1", "liver_2", "liver_10"), ("liver_1", "liver_2", "liver_10")),
        (("tile_1", "tile_2", "tile_3"), ("tile_1", "tile_2", "tile_3")),
        (("x_tile_1", "x_tile_2", "x_tile_3"), ("x_tile_1", "x_tile_2", "x_tile_3")),
    ],
)
def test_patients_of__names_that_tell__groups_their_cases(
    names: tuple[str, ...], patients: tuple[object, ...]
) -> None:
    found = [patients_of(cases_named(*names))[name] for name in names]
    groups = [[other == one for other in patients] for one in patients]
    assert [[other == one for other in found] for one in found] == groups


@given(seed=st.text(max_size=5), fraction=st.integers(1, 999_999))
def test_held_out__of_patients_with_several_cases__never_parts_them(
    seed: str, fraction: int
) -> None:
    cases = cases_named(*(f"patient{p}_slice{s}" for p in range(6) for s in range(p + 1)))
    chosen = held_out(cases, fraction, seed)
    for patient in range(6):
        own = {f"patient{patient}_slice{number}" for number in range(patient + 1)}
        assert own <= chosen or not own & chosen
    assert 0 < len(chosen) < len(cases)


@pytest.mark.skipif(not DATA.is_dir(), reason="POUW_DATA names no folder with hippocampus/")
def test_read_dataset__of_a_real_decathlon_folder__loads_every_kind_of_case() -> None:
    dataset = read_dataset(DATA)
    assert len(dataset.train) == 208
    assert len(dataset.labels) == 3
    for file in dataset.train[::10]:
        case = load_case(file, 3)
        reference = np.asarray(nibabel.load(file.images[0]).dataobj)
        assert np.array_equal(case.image[0], reference.astype(np.float32))
        assert case.label is not None
        assert set(np.unique(case.label)) == {0, 1, 2}
        assert case.spacing_um == (1000, 1000, 1000)
