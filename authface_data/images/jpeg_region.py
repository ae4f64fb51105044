"""A part of a photograph: of a JPEG no more rows are decoded than it takes, at the scale that is enough.

A JPEG decoder can halve, quarter and so on while it decodes, for less work, and can stop early: here by being told that
the picture ends below the rows that are wanted.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

SHRINKS = (8, 4, 2)  # what a JPEG decoder offers
SMALLEST_PX = (
    128  # a smaller picture is not worth reducing, and its reduced size would be ambiguous
)
BLOCK_ROWS = 16  # the tallest block that rows come in
# Start of frame, in all its kinds: 0xC0 .. 0xCF but for tables (C4), an extension (C8) and arithmetic conditioning (CC).
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# EXIF orientation: whether rows and columns are swapped, whether the stored x and y run backwards, and the way upright.
TURNS: dict[int, tuple[bool, bool, bool, Image.Transpose | None]] = {
    1: (False, False, False, None),
    2: (False, True, False, Image.Transpose.FLIP_LEFT_RIGHT),
    3: (False, True, True, Image.Transpose.ROTATE_180),
    4: (False, False, True, Image.Transpose.FLIP_TOP_BOTTOM),
    5: (True, False, False, Image.Transpose.TRANSPOSE),
    6: (True, False, True, Image.Transpose.ROTATE_270),
    7: (True, True, True, Image.Transpose.TRANSVERSE),
    8: (True, True, False, Image.Transpose.ROTATE_90),
}


@dataclass(frozen=True)
class Piece:
    """pixels: (h, w, 3) uint8 sRGB; origin_px: its left upper corner in the photograph, pixel edges; shrink: photo pixels
    per pixel, exactly."""

    pixels: np.ndarray
    origin_px: tuple[int, int]
    shrink: int

    def from_photo(self, points_px: np.ndarray) -> np.ndarray:
        """Points (n, 2) of the photograph as points of the piece, both pixel centres."""
        return (points_px + 0.5 - np.array(self.origin_px)) / self.shrink - 0.5

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        """The way back."""
        return (points + 0.5) * self.shrink + np.array(self.origin_px) - 0.5


def shrink_for(scale: float) -> int:
    """The largest reduction that leaves at least one decoded pixel where 1/scale of one is wanted: 8, 4, 2 or 1."""
    return next((shrink for shrink in SHRINKS if shrink <= scale), 1)


class JpegRegions:
    """Parts of one JPEG file, each scale decoded as far down as it has been asked for.

    data: the file; orientation: its EXIF orientation.
    """

    def __init__(self, data: bytes, orientation: int):
        self._data, (self._swap, *self._back, self._upright) = (
            data,
            TURNS.get(orientation, TURNS[1]),
        )
        self._decoded: dict[int, tuple[int, Image.Image]] = {}
        with Image.open(io.BytesIO(data)) as image:
            self._stored_px = image.size

    def cut(
        self, box_px: tuple[int, int, int, int], shrink: int
    ) -> tuple[Image.Image, tuple[int, int], int]:
        """The upright picture of a box within the upright photograph (pixel edges), its corner, and the true reduction."""
        x0, y0, x1, y1 = self._stored(box_px)
        shrink = shrink if min(self._stored_px) >= SMALLEST_PX else 1
        shrink, image = self._decode(shrink, y1)
        left, top, right, bottom = x0 // shrink, y0 // shrink, -(-x1 // shrink), -(-y1 // shrink)
        right, bottom = min(right, image.width), min(bottom, image.height)
        piece = image.crop((left, top, right, bottom))
        if self._upright is not None:
            piece = piece.transpose(self._upright)
        stored = (left * shrink, top * shrink, right * shrink, bottom * shrink)
        return piece, self._from_stored(stored), shrink

    def _decode(self, shrink: int, rows: int) -> tuple[int, Image.Image]:
        if shrink not in self._decoded or self._decoded[shrink][0] < rows:
            width, height = self._stored_px
            if shrink in self._decoded or rows + BLOCK_ROWS > 0.9 * height:
                rows, data = height, self._data
            else:
                rows = min(-(-rows // BLOCK_ROWS) * BLOCK_ROWS + BLOCK_ROWS, height)
                data = cut_off(self._data, rows)
            image: Image.Image = Image.open(io.BytesIO(data))
            image.draft("RGB", (width // shrink, max(rows // shrink, 1)))
            image.load()
            self._decoded[shrink] = rows, image
        image = self._decoded[shrink][1]
        return round(self._stored_px[0] / image.width), image

    def _stored(self, box_px: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """A box of the upright photograph in the file's own rows and columns."""
        x0, y0, x1, y1 = box_px
        if self._swap:
            x0, y0, x1, y1 = y0, x0, y1, x1
        width, height = self._stored_px
        if self._back[0]:
            x0, x1 = width - x1, width - x0
        if self._back[1]:
            y0, y1 = height - y1, height - y0
        return x0, y0, x1, y1

    def _from_stored(self, box: tuple[int, int, int, int]) -> tuple[int, int]:
        """The left upper corner, in the upright photograph, of a box in the file's rows and columns."""
        width, height = self._stored_px
        x = width - box[2] if self._back[0] else box[0]
        y = height - box[3] if self._back[1] else box[1]
        return (y, x) if self._swap else (x, y)


def cut_off(jpeg: bytes, rows: int) -> bytes:
    """The same file, saying that it has so many rows: a decoder stops there. Unchanged where no frame header is found."""
    at = 2
    while at + 9 < len(jpeg) and jpeg[at] == 0xFF:
        code = jpeg[at + 1]
        if code in FRAMES:
            height = at + 5  # after the marker, the length and the precision
            return jpeg[:height] + rows.to_bytes(2, "big") + jpeg[height + 2 :]
        at += 1 if code == 0xFF else 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg
