"""A JPEG with some of its blocks exchanged: all others stay as they are stored, so that they decode to the same pixels."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from manifests.support.errors import MissingResourceError

BLOCK_PX = 8
UNUSUAL = "is a JPEG of an unusual layout: save it as PNG first, for as it is it could not be written again with the same pixels"
MARKER, APP2, START_OF_SCAN = 0xFF, 0xE2, 0xDA


def keep(original: bytes, written: bytes, boxes_px: list[tuple[int, int, int, int]]) -> bytes:
    """The original JPEG with the blocks under some boxes (left, top, right, bottom) taken from another of its size and tables.

    Its metadata stay as well, but for the index of further pictures in the file (MPO), which are not kept. Raises ValueError,
    in words, for an original that is laid out otherwise (4:1:1, 4:4:0, RGB), MissingResourceError where jpeglib is not there.
    """
    try:
        import jpeglib
    except ImportError as error:
        raise MissingResourceError(
            "JPEG photographs are changed block by block with jpeglib: pip install 'authface[train]'"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "original.jpg"), Path(folder, "written.jpg")
        ours.write_bytes(original)
        theirs.write_bytes(written)
        try:
            kept, new = jpeglib.read_dct(str(ours)), jpeglib.read_dct(str(theirs))
            if not _alike(kept, new):
                raise ValueError(UNUSUAL)
            for name in ("Y", "Cb", "Cr"):
                _exchange(getattr(kept, name), getattr(new, name), kept, boxes_px)
            kept.write_dct(str(ours))
        except (OSError, IndexError) as error:
            raise ValueError(UNUSUAL) from error
        return _without_index(ours.read_bytes())


def _alike(one: Any, other: Any) -> bool:
    if (one.qt.shape, one.Y.shape) != (other.qt.shape, other.Y.shape) or (one.Cb is None) != (
        other.Cb is None
    ):
        return False
    if (
        one.jpeg_color_space.name != other.jpeg_color_space.name
    ):  # its members are all equal to each other
        return False
    same_tables = bool((one.qt == other.qt).all()) and list(one.quant_tbl_no) == list(
        other.quant_tbl_no
    )
    return same_tables and (one.Cb is None or one.Cb.shape == other.Cb.shape)


def _exchange(blocks: Any, by: Any, jpeg: Any, boxes_px: list[tuple[int, int, int, int]]) -> None:
    """blocks: (rows, columns, 8, 8) of one component, which may hold fewer pixels than the picture has."""
    if blocks is None:
        return
    # Pixels of the picture a block: one of the luma's grid, or of a chroma grid half as fine.
    down = BLOCK_PX * round(jpeg.Y.shape[0] / blocks.shape[0])
    across = BLOCK_PX * round(jpeg.Y.shape[1] / blocks.shape[1])
    for left, top, right, bottom in boxes_px:
        rows, columns = (
            slice(top // down, -(-bottom // down)),
            slice(left // across, -(-right // across)),
        )
        blocks[rows, columns] = by[rows, columns]


def _without_index(jpeg: bytes) -> bytes:
    """Without the segment that says where further pictures lie: what comes after the first is not written."""
    place = 2
    while place + 4 <= len(jpeg) and jpeg[place] == MARKER and jpeg[place + 1] != START_OF_SCAN:
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if jpeg[place + 1] == APP2 and jpeg[place + 4 : place + 8] == b"MPF\0":
            return jpeg[:place] + jpeg[end:]
        place = end
    return jpeg
