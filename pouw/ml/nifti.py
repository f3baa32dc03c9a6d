"""Reading NIfTI-1 files that come from strangers.

The 348-byte header alone is read first; dimensions, type and size are bounded before anything is
decoded, then exactly the announced bytes are read. Header extensions are skipped, never parsed.
"""

from __future__ import annotations

import gzip
import math
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

import numpy as np
from nibabel.nifti1 import header_dtype
from numpy.typing import NDArray

from pouw.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_AXIS: Final = 4096
MAX_CHANNELS: Final = 16
MAX_DECODED_BYTES: Final = 1 << 30
HEADER_BYTES: Final = 348
_MAX_EXTENSION_BYTES: Final = 1 << 20
_MAX_SPACING_UM: Final = 1_000_000_000
_MICROMETRES: Final = {0: 1e3, 1: 1e6, 2: 1e3, 3: 1.0}
# NIfTI-1 "datatype" of the real numbers; complex, RGB and 128-bit voxels are not images here.
_TYPES: Final = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a file announce, within bounds.

    ``shape``: axes X, Y, Z, with a fourth for channels where the file has one; ``spacing_um``: of
    X, Y, Z in micrometres, at least 1.
    """

    shape: tuple[int, ...]
    spacing_um: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    offset: int
    slope: float
    intercept: float


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed where it ends in ``.gz``; DataError for faults of reading."""
    try:
        with path.open("rb") as file:
            zipped = path.name.endswith(".gz")
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if zipped else file
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def read_header(path: Path) -> Header:
    """The checked header of one file; DataError where it is no bounded NIfTI-1 image."""
    with opened(path) as stream:
        return parse_header(path, stream.read(HEADER_BYTES))


def stored_fields(block: bytes) -> np.void:
    """The header's fields in the byte order of the file."""
    fields: np.void = np.frombuffer(block, header_dtype)[0]
    if not 1 <= int(fields["dim"][0]) <= 7:
        fields = np.frombuffer(block, header_dtype.newbyteorder())[0]
    return fields


def parse_header(path: Path, block: bytes) -> Header:
    """What a file's first 348 bytes announce; DataError where that is no bounded image."""
    hint = "write images and labels as single-file NIfTI-1 (.nii or .nii.gz)"
    if len(block) != HEADER_BYTES or block[344:347] != b"n+1":
        raise DataError(f"{path}: not a single-file NIfTI-1 image", hint=hint)
    header = stored_fields(block)
    swapped = header.dtype != header_dtype
    code = _TYPES.get(int(header["datatype"]))
    if int(header["sizeof_hdr"]) != HEADER_BYTES or code is None:
        raise DataError(
            f"{path}: voxels of NIfTI type {int(header['datatype'])} cannot be read", hint=hint
        )
    dtype = np.dtype(code).newbyteorder("S" if swapped else "=")
    dims = [int(number) for number in header["dim"]]
    axes, shape = dims[0], dims[1 : dims[0] + 1]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if not 2 <= axes <= 7 or not 2 <= len(shape) <= 4:
        raise DataError(f"{path}: {axes} axes; two, three, or three and channels can be read")
    shape += [1] * (3 - len(shape))
    if not all(1 <= size <= MAX_AXIS for size in shape[:3]):
        raise DataError(f"{path}: shape {tuple(shape)}; every axis must be 1 to {MAX_AXIS}")
    if len(shape) == 4 and not 1 <= shape[3] <= MAX_CHANNELS:
        raise DataError(f"{path}: {shape[3]} channels, at most {MAX_CHANNELS}")
    # Decoding makes float32 voxels out of whatever is stored: both sizes count.
    if math.prod(shape) * max(4, dtype.itemsize) > MAX_DECODED_BYTES:
        raise DataError(f"{path}: shape {tuple(shape)} passes {MAX_DECODED_BYTES} bytes")
    offset = float(header["vox_offset"])
    if not HEADER_BYTES <= offset <= HEADER_BYTES + _MAX_EXTENSION_BYTES:
        raise DataError(f"{path}: voxels begin at byte {offset}", hint=hint)
    scale = _MICROMETRES.get(int(header["xyzt_units"]) & 7, 1e3)
    spacing = [float(size) * scale for size in header["pixdim"][1:4]]
    if axes == 2:
        spacing[2] = 1e3  # what a flat file says here means nothing
    if not all(math.isfinite(size) and 0.5 <= abs(size) <= _MAX_SPACING_UM for size in spacing):
        raise DataError(f"{path}: voxel spacing {spacing} in micrometres is not usable")
    x_um, y_um, z_um = (max(1, round(abs(size))) for size in spacing)
    # A slope of 0 or NaN means that stored values are the intensities.
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0.0 or not math.isfinite(slope):
        slope, intercept = 1.0, 0.0
    return Header(tuple(shape), (x_um, y_um, z_um), dtype, int(offset), slope, intercept)


def read_voxels(path: Path) -> tuple[Header, NDArray[np.generic]]:
    """Header and voxels (X, Y, Z[, C]) with the file's intensity scaling applied.

    Unscaled voxels keep the stored type; scaled ones are float64. DataError where the file is not
    bounded NIfTI-1, is shorter than announced, damaged, or not finite.
    """
    with opened(path) as stream:
        header = parse_header(path, stream.read(HEADER_BYTES))
        stream.read(header.offset - HEADER_BYTES)
        size = math.prod(header.shape) * header.dtype.itemsize
        data = stream.read(size)
        stream.read(1)  # makes gzip check its CRC where the voxels are the end of the stream
    if len(data) != size:
        raise DataError(f"{path}: {len(data)} bytes of voxels, the header announces {size}")
    voxels: NDArray[np.generic] = np.frombuffer(data, header.dtype).reshape(header.shape, order="F")
    if (header.slope, header.intercept) != (1.0, 0.0):
        wide = voxels.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            wide *= header.slope
            wide += header.intercept
        voxels = wide
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise DataError(f"{path}: voxels that are not finite numbers")
    return header, voxels
