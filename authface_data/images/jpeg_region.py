"""Decoding a part of a JPEG: only the necessary rows, at a reduced scale if that suffices.

A JPEG decoder can divide the scale by 2, 4 or 8 while it decodes, which saves work. It also stops
at the height in the frame header, so rewriting that height stops it below the region's last row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

SHRINK_FACTORS = (8, 4, 2)
"""Scale divisors that JPEG decoders support, besides 1."""

MIN_SHRINK_SIDE_PX = 128
"""A picture with a shorter side below this is decoded at full scale.

Its size after a reduced decode would not determine the shrink factor.
"""

BLOCK_ROWS = 16
"""Height of the tallest block of rows that a JPEG decoder handles at once."""

# Markers 0xC0 to 0xCF start a frame, except DHT (C4), JPG (C8) and DAC (CC).
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class _Orientation:
    """How the stored rows and columns relate to the upright picture.

    Attributes:
        swaps_axes: Whether stored rows are upright columns.
        flips_x: Whether the stored x axis runs backwards.
        flips_y: Whether the stored y axis runs backwards.
        to_upright: The transposition that makes the stored picture upright.
    """

    swaps_axes: bool
    flips_x: bool
    flips_y: bool
    to_upright: Image.Transpose | None


# Value of the EXIF tag -> swaps_axes, flips_x, flips_y, to_upright.
ORIENTATIONS = {
    1: _Orientation(False, False, False, None),
    2: _Orientation(False, True, False, Image.Transpose.FLIP_LEFT_RIGHT),
    3: _Orientation(False, True, True, Image.Transpose.ROTATE_180),
    4: _Orientation(False, False, True, Image.Transpose.FLIP_TOP_BOTTOM),
    5: _Orientation(True, False, False, Image.Transpose.TRANSPOSE),
    6: _Orientation(True, False, True, Image.Transpose.ROTATE_270),
    7: _Orientation(True, True, True, Image.Transpose.TRANSVERSE),
    8: _Orientation(True, True, False, Image.Transpose.ROTATE_90),
}


@dataclass(frozen=True)
class PhotoRegion:
    """A decoded part of a photograph.

    Attributes:
        pixels: (height, width, 3) uint8 sRGB.
        origin_px: (x, y) pixel edges of the region's top left corner in the upright photograph.
        shrink: Photograph pixels per pixel of the region: 1, 2, 4 or 8.
    """

    pixels: np.ndarray
    origin_px: tuple[int, int]
    shrink: int

    def from_photo(self, points_px: np.ndarray) -> np.ndarray:
        """Map points of the photograph to points of the region.

        Args:
            points_px: (n, 2) pixel centres in the photograph.

        Returns:
            (n, 2) pixel centres in the region.
        """
        return (points_px + 0.5 - np.array(self.origin_px)) / self.shrink - 0.5

    def to_photo(self, points_px: np.ndarray) -> np.ndarray:
        """Map points of the region to points of the photograph.

        Args:
            points_px: (n, 2) pixel centres in the region.

        Returns:
            (n, 2) pixel centres in the photograph.
        """
        return (points_px + 0.5) * self.shrink + np.array(self.origin_px) - 0.5


def largest_shrink(scale: float) -> int:
    """Return the largest shrink factor (1, 2, 4 or 8) that is at most `scale`.

    With it, decoding keeps at least one pixel for every `scale` pixels of the photograph.
    """
    for shrink in SHRINK_FACTORS:
        if shrink <= scale:
            return shrink
    return 1


class JpegRegionDecoder:
    """Decodes regions of one JPEG file and keeps the rows decoded so far, for each shrink factor.

    Args:
        data: The content of the file.
        orientation: Its EXIF orientation, 1 to 8. Other values are treated as 1.
        open_image: Opens a picture, see `authface_data.images.open`.
    """

    def __init__(
        self, data: bytes, orientation: int, open_image: Callable[[bytes], Image.Image]
    ) -> None:
        self._data = data
        self._open_image = open_image
        self._orientation = ORIENTATIONS.get(orientation, ORIENTATIONS[1])
        # Requested shrink factor -> number of stored rows decoded, and the decoded picture.
        self._decoded: dict[int, tuple[int, Image.Image]] = {}
        with open_image(data) as image:
            self._stored_size_px = image.size

    def decode(
        self, box_px: tuple[int, int, int, int], shrink: int
    ) -> tuple[Image.Image, tuple[int, int], int]:
        """Decode a box of the upright photograph.

        Args:
            box_px: Pixel edges (left, top, right, bottom) within the upright photograph.
            shrink: The requested shrink factor: 1, 2, 4 or 8.

        Returns:
            The upright picture of the box, the (x, y) pixel edges of its top left corner in the
            photograph, and the shrink factor that was applied.
        """
        x0, y0, x1, y1 = self._to_stored(box_px)
        if min(self._stored_size_px) < MIN_SHRINK_SIDE_PX:
            shrink = 1
        shrink, image = self._decode_rows(shrink, y1)

        left, top = x0 // shrink, y0 // shrink
        right = min(-(-x1 // shrink), image.width)
        bottom = min(-(-y1 // shrink), image.height)
        region = image.crop((left, top, right, bottom))
        if self._orientation.to_upright is not None:
            region = region.transpose(self._orientation.to_upright)

        stored_box_px = (left * shrink, top * shrink, right * shrink, bottom * shrink)
        return region, self._upright_origin(stored_box_px), shrink

    def _decode_rows(self, shrink: int, num_rows: int) -> tuple[int, Image.Image]:
        """Decode at least the first `num_rows` stored rows.

        Returns:
            The shrink factor that the decoder applied, and the decoded picture.
        """
        if shrink not in self._decoded or self._decoded[shrink][0] < num_rows:
            width, height = self._stored_size_px
            # After a second, lower region, others are likely to follow: decode the whole file.
            if shrink in self._decoded or num_rows + BLOCK_ROWS > 0.9 * height:
                num_rows = height
                data = self._data
            else:
                num_rows = -(-num_rows // BLOCK_ROWS) * BLOCK_ROWS + BLOCK_ROWS
                num_rows = min(num_rows, height)
                data = truncate_jpeg(self._data, num_rows)

            image = self._open_image(data)
            image.draft("RGB", (max(width // shrink, 1), max(num_rows // shrink, 1)))
            image.load()
            self._decoded[shrink] = num_rows, image

        image = self._decoded[shrink][1]
        return round(self._stored_size_px[0] / image.width), image

    def _to_stored(self, box_px: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """Map a box of the upright photograph to the stored rows and columns."""
        x0, y0, x1, y1 = box_px
        if self._orientation.swaps_axes:
            x0, y0, x1, y1 = y0, x0, y1, x1
        width, height = self._stored_size_px
        if self._orientation.flips_x:
            x0, x1 = width - x1, width - x0
        if self._orientation.flips_y:
            y0, y1 = height - y1, height - y0
        return x0, y0, x1, y1

    def _upright_origin(self, stored_box_px: tuple[int, int, int, int]) -> tuple[int, int]:
        """Return the top left corner, in the upright photograph, of a box of stored pixels."""
        width, height = self._stored_size_px
        x0, y0, x1, y1 = stored_box_px
        x = width - x1 if self._orientation.flips_x else x0
        y = height - y1 if self._orientation.flips_y else y0
        return (y, x) if self._orientation.swaps_axes else (x, y)


def truncate_jpeg(data: bytes, num_rows: int) -> bytes:
    """Rewrite the height in a JPEG's frame header, so that a decoder stops after `num_rows` rows.

    Args:
        data: The content of a JPEG file.
        num_rows: The height to write.

    Returns:
        The changed content, or `data` itself if it has no frame header.
    """
    position = 2  # after the start-of-image marker
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in FRAME_MARKERS:
            # The height follows the marker (2 bytes), the segment length (2) and the precision (1).
            height_at = position + 5
            return data[:height_at] + num_rows.to_bytes(2, "big") + data[height_at + 2 :]

        if marker == 0xFF:  # padding before a marker
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data
