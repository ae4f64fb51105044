"""Replaces some 8 x 8 blocks of a JPEG file; the others keep their stored coefficients.

Decoding and encoding a JPEG again changes every pixel. Copying the quantised coefficients of the
untouched blocks keeps their pixels bit-identical.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manifests.support.errors import MissingResourceError
from manifests.support.extras import describe_missing

BLOCK_PX = 8
UNSUPPORTED_LAYOUT = (
    "is a JPEG with an unusual layout and cannot be written back unchanged; save it as PNG first"
)
MARKER = 0xFF
APP2 = 0xE2
START_OF_SCAN = 0xDA

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixel edges."""


def replace_blocks(original: bytes, replacement: bytes, boxes_px: Sequence[Box]) -> bytes:
    """Copy the blocks under some boxes from one JPEG file into another.

    Metadata of the original are kept, except for the index of further pictures in the file (MPO):
    only the first picture is written.

    Args:
        original: The JPEG file to change.
        replacement: A JPEG file of the same size, chroma subsampling and quantisation tables.
        boxes_px: (left, top, right, bottom) pixel edges of the regions to replace. A box is
            extended to whole blocks.

    Returns:
        The changed JPEG file.

    Raises:
        ValueError: If the original has a layout that is not supported (4:1:1, 4:4:0, RGB).
        MissingResourceError: If jpeglib is not installed.
    """
    try:
        import jpeglib
    except ImportError as error:
        raise MissingResourceError(
            describe_missing(["train"], "writing JPEG photographs block by block")
        ) from error

    with tempfile.TemporaryDirectory() as folder:
        original_path = Path(folder, "original.jpg")
        replacement_path = Path(folder, "replacement.jpg")
        original_path.write_bytes(original)
        replacement_path.write_bytes(replacement)
        try:
            target = jpeglib.read_dct(str(original_path))
            source = jpeglib.read_dct(str(replacement_path))
            if not _same_layout(target, source):
                raise ValueError(UNSUPPORTED_LAYOUT)
            for component in ("Y", "Cb", "Cr"):
                blocks = getattr(target, component)
                if blocks is not None:
                    _copy_blocks(blocks, getattr(source, component), target.Y.shape, boxes_px)
            target.write_dct(str(original_path))
        except (OSError, IndexError) as error:
            raise ValueError(UNSUPPORTED_LAYOUT) from error
        return _remove_mpo_index(original_path.read_bytes())


def _same_layout(first: Any, second: Any) -> bool:
    """Whether two `jpeglib.DCTJPEG` have the same size, colour space and quantisation tables."""
    if first.qt.shape != second.qt.shape or first.Y.shape != second.Y.shape:
        return False
    if (first.Cb is None) != (second.Cb is None):
        return False
    # The members of jpeglib's enumeration all compare equal; their names differ.
    if first.jpeg_color_space.name != second.jpeg_color_space.name:
        return False
    if not (first.qt == second.qt).all():
        return False
    if list(first.quant_tbl_no) != list(second.quant_tbl_no):
        return False
    return first.Cb is None or first.Cb.shape == second.Cb.shape


def _copy_blocks(
    target: np.ndarray, source: np.ndarray, luma_shape: tuple[int, ...], boxes_px: Sequence[Box]
) -> None:
    """Copy the blocks under some boxes in place.

    Args:
        target: (rows, columns, 8, 8) coefficients of one component.
        source: Coefficients of the same component, same shape.
        luma_shape: Shape of the luma coefficients. Chroma may have half as many rows or columns.
        boxes_px: Boxes in pixels of the picture.
    """
    block_height_px = BLOCK_PX * round(luma_shape[0] / target.shape[0])
    block_width_px = BLOCK_PX * round(luma_shape[1] / target.shape[1])
    for left, top, right, bottom in boxes_px:
        rows = slice(top // block_height_px, -(-bottom // block_height_px))
        columns = slice(left // block_width_px, -(-right // block_width_px))
        target[rows, columns] = source[rows, columns]


def _remove_mpo_index(jpeg: bytes) -> bytes:
    """Remove the MPF segment, which points to further pictures that are not written."""
    start = 2
    while start + 4 <= len(jpeg) and jpeg[start] == MARKER and jpeg[start + 1] != START_OF_SCAN:
        end = start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
        if jpeg[start + 1] == APP2 and jpeg[start + 4 : start + 8] == b"MPF\0":
            return jpeg[:start] + jpeg[end:]
        start = end
    return jpeg
