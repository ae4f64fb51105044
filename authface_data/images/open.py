"""Opening picture files: the only place that decodes them to upright 8-bit sRGB pixels.

EXIF orientation, ICC profiles, alpha, 16-bit, CMYK and reduced JPEG decoding are handled here once.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from authface_data.images.colour import to_srgb
from authface_data.images.jpeg_region import ORIENTATIONS, JpegRegionDecoder, PhotoRegion
from manifests.workspace import Workspace

# Pillow warns above this and refuses twice as many. Its default refuses large scans.
Image.MAX_IMAGE_PIXELS = 500_000_000

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif")

DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
"""Exceptions that Pillow raises for a file that it cannot decode."""

JPEG_FORMATS = ("JPEG", "MPO")
"""Pillow's names of the formats whose files start with a JPEG."""

TRANSPOSED_ORIENTATIONS = tuple(
    value for value, orientation in ORIENTATIONS.items() if orientation.swaps_axes
)
"""EXIF orientations that swap width and height."""

EXIF_IFD = 0x8769
ORIENTATION = 0x0112
TIFF_WIDTH = 0x0100


def _register_heif() -> None:
    """Let Pillow read HEIC files if pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


_register_heif()


@dataclass(frozen=True)
class _Header:
    """Properties that Pillow reads without decoding pixels.

    Attributes:
        size_px: (width, height) of the upright photograph.
        format: Pillow's name of the file format.
        exif: Tags of the main and the Exif directory, by number.
    """

    size_px: tuple[int, int]
    format: str
    exif: dict[int, object]


class Photo:
    """A photograph that is decoded on first use, at most once per scale.

    The properties and methods raise one of `DECODE_ERRORS` if the file cannot be decoded.

    Args:
        read: Returns the content of the file. It is called at most once.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._decoded: dict[int, np.ndarray] = {}

    @cached_property
    def data(self) -> bytes:
        """The unmodified content of the file."""
        return self._read()

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the upright photograph."""
        return self._header.size_px

    @property
    def format(self) -> str:
        """Pillow's name of the file format."""
        return self._header.format

    @property
    def exif(self) -> dict[int, object]:
        """EXIF tags of the main and the Exif directory, by number, without the GPS directory."""
        return self._header.exif

    def pixels(self, long_side_px: int | None = None) -> np.ndarray:
        """Decode the whole photograph.

        A JPEG is decoded at a reduced scale if the requested size allows it.

        Args:
            long_side_px: Scale the picture down so that its longer side is at most this. None
                returns it at full size. A picture is never enlarged.

        Returns:
            (height, width, 3) uint8 sRGB, upright.
        """
        full_px = max(self.size_px)
        target_px = full_px if long_side_px is None else min(full_px, long_side_px)
        if target_px not in self._decoded:
            self._decoded[target_px] = self._decode(target_px)
        return self._decoded[target_px]

    def region(self, box_px: tuple[int, int, int, int], shrink: int = 1) -> PhotoRegion:
        """Decode a part of the photograph.

        Args:
            box_px: Pixel edges (left, top, right, bottom) in the upright photograph. The part that
                lies outside the photograph is cut off.
            shrink: Divide the scale by 1, 2, 4 or 8 while decoding. Only JPEG files support it.

        Returns:
            The region, with the shrink factor that was applied: 1 for formats other than JPEG and
            for very small pictures.
        """
        width, height = self.size_px
        left, top = max(box_px[0], 0), max(box_px[1], 0)
        right, bottom = min(box_px[2], width), min(box_px[3], height)
        if self.format not in JPEG_FORMATS:
            return PhotoRegion(self.pixels()[top:bottom, left:right], (left, top), 1)

        image, origin_px, shrink = self._jpeg.decode((left, top, right, bottom), shrink)
        return PhotoRegion(np.asarray(to_srgb(image)), origin_px, shrink)

    def _open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.data))

    @cached_property
    def _header(self) -> _Header:
        with self._open() as image:
            exif = image.getexif()
            exif_directory = exif.get_ifd(EXIF_IFD)
            # Only the orientation of the main directory rotates the picture.
            tags = {tag: value for tag, value in exif_directory.items() if tag != ORIENTATION}
            tags |= dict(exif)

            is_transposed = exif.get(ORIENTATION) in TRANSPOSED_ORIENTATIONS
            if is_transposed and isinstance(image, TiffImagePlugin.TiffImageFile):
                # Some versions of Pillow already report the upright size of a TIFF.
                is_transposed = image.tag_v2.get(TIFF_WIDTH) == image.width
            size_px = image.size[::-1] if is_transposed else image.size
            return _Header(size_px, str(image.format), tags)

    @cached_property
    def _jpeg(self) -> JpegRegionDecoder:
        return JpegRegionDecoder(self.data, cast(int, self.exif.get(ORIENTATION, 1)))

    def _decode(self, long_side_px: int) -> np.ndarray:
        """Decode the photograph with its longer side at `long_side_px`."""
        full_px = max(self.size_px)
        image = self._open()
        if long_side_px < full_px:
            scale = long_side_px / full_px
            image.draft("RGB", (round(image.width * scale), round(image.height * scale)))

        ImageOps.exif_transpose(image, in_place=True)
        image = to_srgb(image)
        if max(image.size) > long_side_px:
            width, height = self.size_px
            size_px = (
                max(round(width * long_side_px / full_px), 1),
                max(round(height * long_side_px / full_px), 1),
            )
            image = image.resize(size_px, Image.Resampling.LANCZOS, reducing_gap=3.0)
        return np.asarray(image)


def decode_image(data: bytes) -> np.ndarray:
    """Decode the content of a picture file.

    Args:
        data: The content of the file.

    Returns:
        (height, width, 3) uint8 sRGB, upright.

    Raises:
        Exception: One of `DECODE_ERRORS` if the file cannot be decoded.
    """
    return Photo(lambda: data).pixels()


class PictureReader:
    """Opens the pictures that the rows of a manifest name.

    Args:
        workspace: The workspace that holds the pictures.
        column: The column with the path of the picture, relative to the workspace.
    """

    def __init__(self, workspace: Workspace, column: str) -> None:
        self.workspace = workspace
        self.column = column

    def __call__(self, row: Mapping[str, object]) -> Photo:
        """Return the picture of a row. Its file is read on first use."""
        path = str(row[self.column])
        return Photo(lambda: self.workspace.read_bytes(path))
