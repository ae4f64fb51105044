"""A JPEG with some of its blocks exchanged: all others stay as they are stored, so that they decode to the same pixels."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from manifests.errors import Missing

BLOCK_PX = 8


def keep(original: bytes, written: bytes, boxes_px: list[tuple[int, int, int, int]]) -> bytes:
    """The original JPEG with the blocks under some boxes (left, top, right, bottom) taken from another of its size and tables.

    Its metadata stay as well. What is laid out otherwise (another subsampling, arithmetic coding) comes back as it was written.
    Raises Missing where jpeglib is not installed.
    """
    try:
        import jpeglib
    except ImportError as error:
        raise Missing("JPEG photographs are changed block by block with jpeglib: pip install 'authface[train]'") from error
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "original.jpg"), Path(folder, "written.jpg")
        ours.write_bytes(original)
        theirs.write_bytes(written)
        try:
            kept, new = jpeglib.read_dct(str(ours)), jpeglib.read_dct(str(theirs))
            if not _alike(kept, new):
                return written
            for name in ("Y", "Cb", "Cr"):
                _exchange(getattr(kept, name), getattr(new, name), kept, boxes_px)
            kept.write_dct(str(ours))
        except (OSError, IndexError, ValueError):
            return written
        return ours.read_bytes()


def _alike(one: Any, other: Any) -> bool:
    if (one.qt.shape, one.Y.shape) != (other.qt.shape, other.Y.shape) or (one.Cb is None) != (other.Cb is None):
        return False
    same_tables = bool((one.qt == other.qt).all()) and list(one.quant_tbl_no) == list(other.quant_tbl_no)
    return same_tables and (one.Cb is None or one.Cb.shape == other.Cb.shape)


def _exchange(blocks: Any, by: Any, jpeg: Any, boxes_px: list[tuple[int, int, int, int]]) -> None:
    """blocks: (rows, columns, 8, 8) of one component, which may hold fewer pixels than the picture has."""
    if blocks is None:
        return
    # Pixels of the picture a block: one of the luma's grid, or of a chroma grid half as fine.
    down = BLOCK_PX * round(jpeg.Y.shape[0] / blocks.shape[0])
    across = BLOCK_PX * round(jpeg.Y.shape[1] / blocks.shape[1])
    for left, top, right, bottom in boxes_px:
        rows, columns = slice(top // down, -(-bottom // down)), slice(left // across, -(-right // across))
        blocks[rows, columns] = by[rows, columns]
