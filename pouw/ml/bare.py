"""NIfTI files without what scanners, programs and people wrote into them.

Only what voxels and geometry need is taken over, into a header made anew: whatever a patient may be
named in stays behind, in fields that nobody thought of too.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from pouw.errors import DataError
from pouw.ml.nifti import HEADER_BYTES, opened, parse_header, stored_fields

_KEPT: Final = (
    *("sizeof_hdr", "datatype", "scl_slope", "scl_inter", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
_TEXTS: Final = ("data_type", "db_name", "descrip", "aux_file", "intent_name")
_OFFSET: Final = HEADER_BYTES + 4  # four zeros: no extensions
_PIECE_BYTES: Final = 1 << 20
# Three times as fast as level 6 for a hundredth more bytes of a CT; nibabel writes by it too.
_LEVEL: Final = 1


def left_out(path: Path) -> tuple[str, ...]:
    """What of the NIfTI file ``copy_bare`` leaves behind, in words, beside numbers.

    DataError where it is no bounded NIfTI-1 image.
    """
    with opened(path) as stream:
        block, flag = stream.read(HEADER_BYTES), stream.read(4)
        offset = parse_header(path, block).offset
    fields = stored_fields(block)
    extended = offset > _OFFSET or (offset == _OFFSET and flag[:1] > b"\0")
    texts = tuple(name for name in _TEXTS if fields[name].strip(b"\0 "))
    return (*texts, *(["header extensions"] if extended else ()))


def copy_bare(source: Path, out: Path) -> None:
    """Write the NIfTI file ``source`` anew to ``out``, compressed where that ends in ``.gz``.

    Voxels stay as they are bit for bit, with byte order, scaling, affine, spacing and units; no
    text, no extension, and in gzip's header neither name nor time. The same file gives the same
    bytes. DataError where ``source`` is no bounded NIfTI-1 image, or is cut off or damaged.
    """
    with out.open("wb") as file:
        zipped = out.name.endswith(".gz")
        with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) if zipped else file as target:
            for piece in _pieces(source):
                target.write(piece)


def _pieces(path: Path) -> Iterator[bytes]:
    """The new file, header first."""
    with opened(path) as stream:
        block = stream.read(HEADER_BYTES)
        header = parse_header(path, block)
        yield _bare_header(stored_fields(block), header.dtype.itemsize)
        stream.read(header.offset - HEADER_BYTES)
        left = math.prod(header.shape) * header.dtype.itemsize
        while left:
            piece = stream.read(min(left, _PIECE_BYTES))
            if not piece:
                raise DataError(f"{path}: {left} bytes of voxels are missing at its end")
            yield piece
            left -= len(piece)
        stream.read(1)  # makes gzip check its CRC where the voxels are the end of the stream


def _bare_header(fields: np.void, voxel_bytes: int) -> bytes:
    bare = np.zeros((), fields.dtype)
    for name in _KEPT:
        bare[name] = fields[name]
    used = int(fields["dim"][0]) + 1
    bare["dim"] = 1
    bare["dim"][:used] = fields["dim"][:used]
    spaced = max(4, used)  # the affine of a flat image has a third axis too
    bare["pixdim"][:spaced] = fields["pixdim"][:spaced]
    bare["bitpix"] = 8 * voxel_bytes
    bare["vox_offset"] = _OFFSET
    bare["magic"] = b"n+1"
    return bare.tobytes() + bytes(_OFFSET - HEADER_BYTES)
