"""PNG, TIFF, BMP and JPEG files that come from strangers.

A file's size is bounded before it is opened, its format and dimensions before a pixel is decoded.
Nothing but these four decoders of Pillow is ever asked.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pouw.errors import DataError
from pouw.ml.nifti import MAX_AXIS, MAX_DECODED_BYTES

ENDINGS: Final = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
LOSSLESS: Final = (".png", ".tif", ".tiff", ".bmp")
MAX_FILE_BYTES: Final = 1 << 30
_FORMATS: Final = ("PNG", "TIFF", "BMP", "JPEG")
_COLOUR: Final = ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_GREY: Final = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
# JPEG leaves 4 values or more on either side at quality 95; codes of labels are fewer.
_LEAST_MAXIMUM: Final = 64
_BLURRED_KINDS: Final = 3
_FAULTS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    OverflowError,
    MemoryError,
    IndexError,
    KeyError,
    struct.error,
    zlib.error,
    Pillow.DecompressionBombError,
    Pillow.DecompressionBombWarning,
)

Pixels = NDArray[Any]


def read_pixels(path: Path) -> Pixels:
    """An image as (C, X, Y, Z): X to the right, Y down, Z the pages of a TIFF; C is 1 or 3.

    Transparency is dropped, a palette resolved. DataError where the file is not a bounded image.
    """
    with _opened(path) as image:
        if image.mode not in (*_COLOUR, *_GREY, "P", "PA"):
            raise DataError(f"{path}: pixels of kind {image.mode} cannot be read")
        grey = image.mode in _GREY
        pages = [_page(page, grey=grey) for page in _pages(path, image)]
    stacked = np.stack(pages, axis=-1)
    if stacked.dtype.kind == "f" and not np.isfinite(stacked).all():
        raise DataError(f"{path}: pixels that are not finite numbers")
    return stacked


def read_mask(path: Path, *, objects: bool = False) -> Pixels:
    """A mask as integers (X, Y, Z): its values, its palette's indices, or 1 where any colour is.

    ``objects``: its values number objects. DataError where the file is not a bounded image, holds
    values that are not integers from 0, or values of objects or colours as only JPEG leaves them.
    """
    with _opened(path) as image:
        indexed = image.mode in ("P", "PA")
        coloured = not indexed and image.mode not in _GREY
        pages = [_page(page, grey=not coloured).max(axis=0) for page in _pages(path, image)]
    mask = np.stack(pages, axis=-1)
    if (objects or coloured) and _is_blurred(mask):
        raise DataError(
            f"{path}: values near 0 and near its maximum, {int(mask.max())}, but not only those, "
            "as JPEG or resizing leaves them; all of them would be foreground",
            hint="save the mask as PNG from its original, or set what is above half of the maximum "
            "to 255 and the rest to 0; if the values number objects, save them with 16 bits",
        )
    if coloured:
        mask = mask > 0
    # False for NaN and infinity too.
    if mask.dtype.kind == "f" and not np.equal(np.mod(mask, 1), 0).all():
        raise DataError(f"{path}: values that are not integers")
    if mask.min() < 0:
        raise DataError(f"{path}: values below 0")
    return np.ascontiguousarray(mask.astype(np.uint8) if mask.dtype.kind == "b" else mask)


def _is_blurred(mask: Pixels) -> bool:
    """Whether 8-bit values lie around 0 and a maximum, with next to nothing between them.

    Numbers of objects fill the middle too, whatever one of them, the ground perhaps, may cover.
    """
    if mask.dtype != np.uint8 or (top := int(mask.max())) < _LEAST_MAXIMUM:
        return False
    counts = np.bincount(mask.ravel())[1:top]
    low, middle, high = np.split(counts, [top // 4, top // 2])
    kinds = min(np.count_nonzero(low), np.count_nonzero(high))
    return kinds >= _BLURRED_KINDS and 10 * int(middle.sum()) < int(counts.sum() - counts.max())


def _page(page: Pillow.Image, *, grey: bool) -> Pixels:
    """One page as (C, X, Y); of a grey or indexed one the first channel."""
    if grey:
        array = np.asarray(page.getchannel(0) if page.mode in ("LA", "PA") else page)
        if array.dtype == np.bool_:
            array = array.astype(np.uint8)
        return np.ascontiguousarray(array.T[np.newaxis])
    return np.ascontiguousarray(np.asarray(page.convert("RGB")).transpose(2, 1, 0))


@contextmanager
def _opened(path: Path) -> Iterator[Pillow.Image]:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{path}: {size} bytes, at most {MAX_FILE_BYTES} are read")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            with Pillow.open(path, formats=_FORMATS) as image:
                _check_size(path, image)
                yield image
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise _too_large(path, "hundreds of millions of") from error
    except _FAULTS as error:
        raise DataError(
            f"{path}: not a readable image: {error}", hint="save it as PNG or TIFF"
        ) from error


def _check_size(path: Path, image: Pillow.Image) -> None:
    if not all(1 <= size <= MAX_AXIS for size in image.size):
        raise _too_large(path, f"{image.width} x {image.height}")


def _too_large(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: {what} pixels, at most {MAX_AXIS} on an axis",
        hint="cut large images into tiles",
    )


def _pages(path: Path, image: Pillow.Image) -> Iterator[Pillow.Image]:
    """Every page of the file, checked before it is decoded; all have one size and kind."""
    size, mode, number = image.size, image.mode, 0
    allowed = max(1, MAX_DECODED_BYTES // (4 * 3 * size[0] * size[1]))
    while True:
        if (image.size, image.mode) != (size, mode):
            raise DataError(f"{path}: its pages differ in size or kind")
        yield image
        number += 1
        try:
            image.seek(number)
        except EOFError:
            return
        _check_size(path, image)
        if number >= min(allowed, MAX_AXIS):
            raise DataError(f"{path}: more than {number} pages of this size")
