"""What miners open holds voxels and geometry, and nothing that was written beside them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from pouw.errors import DataError
from pouw.ml.bare import left_out
from pouw.ml.layout import CaseFile, Dataset
from pouw.ml.nifti import read_header, read_voxels
from pouw.ml.readers.source import Source
from pouw.ml.split import Split, write_split

NAME = b"Mueller^Hans 1961-03-04"
AFFINE = np.array(
    [[0.0, -0.5, 0.1, 12.5], [0.7, 0.0, 0.0, -3.0], [0.0, 0.2, 2.0, 99.0], [0.0, 0.0, 0.0, 1.0]]
)
ROTATION = np.array(
    [[0.0, -0.5, 0.0, 12.5], [0.7, 0.0, 0.0, -3.0], [0.0, 0.0, 2.0, 99.0], [0.0, 0.0, 0.0, 1.0]]
)


def voxels_of(kind: Any, shape: tuple[int, ...] = (5, 4, 3)) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 100, shape).astype(kind)


def named(voxels: np.ndarray, order: str = "<", **fields: Any) -> bytes:
    """An uncompressed file that names its patient wherever it can."""
    header = nibabel.Nifti1Header(endianness=order)
    image = nibabel.Nifti1Image(voxels, AFFINE, header)
    header = image.header
    image.set_sform(AFFINE, code=2)
    image.set_qform(ROTATION, code=1)
    header.set_xyzt_units("mm", "sec")
    header["descrip"], header["aux_file"], header["db_name"] = NAME, NAME, NAME[:17]
    header["intent_name"], header["data_type"] = NAME[:15], NAME[:9]
    header.extensions.append(Nifti1Extension("comment", NAME))
    data = bytearray(image.to_bytes())
    block = np.frombuffer(data, header.structarr.dtype, 1)
    for name, value in fields.items():
        block[name] = value
    return bytes(data) + NAME


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=1_700_000_000)


def publish(path: Path, out: Path) -> Path:
    """The image that a publication makes of a file, which is its own label here."""
    dataset = Dataset(path.parent, ("image",), ("background", "a"), (), ())
    case = CaseFile("n", (path,), path)

    def decode(_file: CaseFile) -> Any:
        raise AssertionError("a NIfTI file was decoded")

    write_split(Source("", dataset, decode, copies=True), Split((case,), ()), (out, out))
    return next((out / "imagesTr").iterdir())


def plain(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


KINDS = {
    "scaled": named(voxels_of("<i2"), scl_slope=0.25, scl_inter=-1024.0),
    "float": named(voxels_of("<f4") / 7),
    "double": named(voxels_of("<f8") / 7),
    "bytes": named(voxels_of("u1")),
    "signed_bytes": named(voxels_of("i1")),
    "channels": named(voxels_of("<u2", (5, 4, 3, 2))),
    "flat": named(voxels_of("<i2", (5, 4))),
    "big_endian": named(voxels_of(">i2"), ">", scl_slope=2.0, scl_inter=1.0),
    "big_endian_float": named(voxels_of(">f4"), ">"),
    "ones_behind": named(voxels_of("<i2", (5, 4, 3, 1, 1))),
    "nameless_units": named(voxels_of("<i2"), xyzt_units=0),
    "micrometres": named(voxels_of("<i2"), xyzt_units=3, pixdim=[0, -500, 700, 2000, 9, 9, 9, 9]),
    "slope_nan": named(voxels_of("<i2"), scl_slope=np.nan, scl_inter=np.nan),
    "bitpix_0": named(voxels_of("<i2"), bitpix=0, dim_info=57, cal_max=3.0),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", KINDS)
def test_write_split__nifti_that_names_its_patient__keeps_voxels_and_grid_alone(
    tmp_path: Path, kind: str, ending: str
) -> None:
    data = KINDS[kind]
    path = tmp_path / f"Mueller{ending}"
    path.write_bytes(zipped(data) if ending == ".nii.gz" else data)
    out = publish(path, tmp_path / "out")
    assert out.name == f"n_0000{ending}"
    assert b"Muel" not in plain(out)
    assert b"Muel" not in out.read_bytes()
    before, after = read_voxels(path), read_voxels(out)
    assert before[1].dtype == after[1].dtype
    assert before[1].tobytes() == after[1].tobytes()
    old, new = nibabel.load(path), nibabel.load(out)
    assert np.array_equal(old.affine, new.affine)
    for form in ("get_qform", "get_sform"):
        (matrix, code), (kept, kept_code) = (getattr(one, form)(coded=True) for one in (old, new))
        assert code == kept_code
        assert np.array_equal(matrix, kept)
    was, now = read_header(path), read_header(out)
    assert (was.shape, was.spacing_um, was.dtype) == (now.shape, now.spacing_um, now.dtype)
    assert (was.slope, was.intercept) == (now.slope, now.intercept)
    assert old.header.get_zooms() == new.header.get_zooms()
    assert old.header["xyzt_units"] == new.header["xyzt_units"]
    assert (now.offset, len(new.header.extensions)) == (352, 0)
    assert len(plain(out)) == 352 + int(np.prod(now.shape)) * now.dtype.itemsize
    if ending == ".nii.gz":
        assert out.read_bytes()[3:8] == bytes(5)  # neither a name nor a time


def test_write_split__twice_and_under_another_name__writes_the_same_bytes(tmp_path: Path) -> None:
    written = set()
    for name, moment in (("a", 1_600_000_000), ("b", 1_700_000_000)):
        path = tmp_path / name / f"{name}.nii.gz"
        path.parent.mkdir()
        path.write_bytes(gzip.compress(KINDS["scaled"], mtime=moment))
        written.add(publish(path, tmp_path / name / "out").read_bytes())
    assert len(written) == 1


def test_write_split__voxels_right_behind_the_header__are_read_from_there(tmp_path: Path) -> None:
    data = named(voxels_of("u1"))
    start = int(np.frombuffer(data, nibabel.Nifti1Header().structarr.dtype, 1)["vox_offset"][0])
    block = np.frombuffer(bytearray(data[:348]), nibabel.Nifti1Header().structarr.dtype, 1)
    block["vox_offset"] = 348
    path = tmp_path / "odd.nii"
    path.write_bytes(block.tobytes() + data[start:])
    out = publish(path, tmp_path / "out")
    assert np.array_equal(read_voxels(out)[1], voxels_of("u1"))


def test_write_split__nifti_that_is_cut_off_or_damaged__is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.nii"
    path.write_bytes(KINDS["float"][:-100])
    with pytest.raises(DataError, match=r"short\.nii: .* missing"):
        publish(path, tmp_path / "out")
    packed = bytearray(zipped(KINDS["float"][: -len(NAME)]))
    packed[-5] ^= 1
    path = tmp_path / "damaged.nii.gz"
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"damaged\.nii\.gz"):
        publish(path, tmp_path / "damaged")


def test_left_out__of_a_file_that_names_its_patient__names_the_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(KINDS["scaled"])
    texts = ("data_type", "db_name", "descrip", "aux_file", "intent_name")
    assert left_out(path) == (*texts, "header extensions")
    assert left_out(publish(path, tmp_path / "out")) == ()
