"""One photograph, decoded when asked and at the scale asked for: upright, sRGB, 8 bit.

Everything that looks at photographs goes through here, so that EXIF orientation, ICC profiles, alpha, 16 bit, CMYK and
reduced JPEG decoding are dealt with once.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from authface_data.images.jpeg_region import JpegRegions, Piece
from manifests.workspace import Workspace

Image.MAX_IMAGE_PIXELS = 500_000_000
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif")
# What Pillow raises at a file that it cannot decode.
DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
JPEGS = ("JPEG", "MPO")
SIDEWAYS = (5, 6, 7, 8)
EXIF_IFD, ORIENTATION, TIFF_WIDTH = 0x8769, 0x0112, 0x0100


def _register_heif() -> None:
    """HEIC is read where pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


_register_heif()


class Photo:
    """A photograph behind a function that reads its bytes, each scale decoded at most once.

    Raises OSError, SyntaxError or ValueError (Pillow's own) on the first look at a file that cannot be decoded.
    """

    def __init__(self, read: Callable[[], bytes]):
        self._read = read
        self._decoded: dict[int, np.ndarray] = {}

    @cached_property
    def data(self) -> bytes:
        """The file, untouched."""
        return self._read()

    def _open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.data))

    @cached_property
    def _header(self) -> tuple[tuple[int, int], str, dict]:
        with self._open() as image:
            exif = image.getexif()
            # Only the main directory's orientation counts: that is what turns the picture.
            tags = {
                **{
                    tag: value
                    for tag, value in exif.get_ifd(EXIF_IFD).items()
                    if tag != ORIENTATION
                },
                **exif,
            }
            is_turned = exif.get(ORIENTATION) in SIDEWAYS
            if is_turned and isinstance(image, TiffImagePlugin.TiffImageFile):
                is_turned = (
                    image.tag_v2.get(TIFF_WIDTH) == image.width
                )  # some versions of Pillow tell the upright size
            size = image.size[::-1] if is_turned else image.size
            return size, str(image.format), tags

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the upright photograph."""
        return self._header[0]

    @property
    def format(self) -> str:
        """Pillow's name of the file format."""
        return self._header[1]

    @property
    def exif(self) -> dict[int, object]:
        """EXIF tags of the main and the Exif directory, by number. GPS is another directory and is not read."""
        return self._header[2]

    def pixels(self, long_side_px: int | None = None) -> np.ndarray:
        """The upright picture as (H, W, 3) uint8 sRGB; with `long_side_px`, scaled down so that its long side is at most that.

        A JPEG is decoded at a reduced scale first where that is enough.
        """
        long = max(self.size_px)
        wanted = long if long_side_px is None else min(long, long_side_px)
        if wanted not in self._decoded:
            self._decoded[wanted] = self._decode(wanted)
        return self._decoded[wanted]

    def region(self, box_px: tuple[int, int, int, int], shrink: int = 1) -> Piece:
        """The part of the upright photograph within a box (pixel edges, cut at its borders), of a JPEG at 1/shrink.

        shrink: 1, 2, 4 or 8; the piece tells what it came to, which is 1 for other formats.
        """
        width, height = self.size_px
        x0, y0, x1, y1 = (
            max(box_px[0], 0),
            max(box_px[1], 0),
            min(box_px[2], width),
            min(box_px[3], height),
        )
        if self.format not in JPEGS:
            return Piece(self.pixels()[y0:y1, x0:x1], (x0, y0), 1)
        image, origin, shrink = self._jpeg.cut((x0, y0, x1, y1), shrink)
        return Piece(np.asarray(to_srgb(image)), origin, shrink)

    @cached_property
    def _jpeg(self) -> JpegRegions:
        return JpegRegions(self.data, cast(int, self.exif.get(ORIENTATION, 1)))

    def _decode(self, long_px: int) -> np.ndarray:
        full = max(self.size_px)
        image = self._open()
        if long_px < full:
            scale = long_px / full
            image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
        ImageOps.exif_transpose(image, in_place=True)
        image = to_srgb(image)
        if max(image.size) > long_px:
            width, height = self.size_px
            size = (max(round(width * long_px / full), 1), max(round(height * long_px / full), 1))
            image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        return np.asarray(image)


class PictureReader:
    """Opens the picture of the workspace that a column of a row names."""

    def __init__(self, workspace: Workspace, column: str):
        self.workspace, self.column = workspace, column

    def __call__(self, row: Mapping[str, Any]) -> Photo:
        return Photo(lambda: self.workspace.read_bytes(row[self.column]))


def to_srgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as RGB in sRGB: its ICC profile applied, 16 bit scaled down, alpha laid over white.

    A profile that cannot be applied is ignored, as browsers do. A 32-bit picture is a ValueError.
    """
    profile = image.info.get("icc_profile")
    if image.mode == "F" or (image.mode == "I" and np.asarray(image).max(initial=0) > 65535):
        raise ValueError("32-bit pictures say not what is white: save it with 8 or 16 bit")
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float32)
        image = Image.fromarray(np.clip(values / 257.0 + 0.5, 0, 255).astype(np.uint8))
        profile = None
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if image.mode == "P":  # a profile is of colours, not of their places in a palette
        image = image.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None
        if converted is not None:
            return converted
    return image if image.mode == "RGB" else image.convert("RGB")
