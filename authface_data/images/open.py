"""Opening picture files: the only place of the project that does so.

`open_image` opens a file with one of an explicit list of decoders, because others execute what they
read (EPS runs Ghostscript), and refuses a picture whose decoding would take too much memory.
`Photo` decodes a photograph to upright 8-bit sRGB pixels: EXIF orientation, ICC profiles, alpha,
16-bit, CMYK and reduced JPEG decoding are handled here once.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from authface_data.images.colour import to_srgb
from authface_data.images.jpeg_region import ORIENTATIONS, JpegRegionDecoder, PhotoRegion
from authface_data.images.jpeg_scans import check_scans
from authface_data.images.tiff_directory import TIFF_MAGIC, check_directories
from manifests.support.errors import UserError
from manifests.support.time_limit import TimeLimitError, has_time_limit, time_limit
from manifests.workspace import Workspace

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff"),
    *(".heic", ".heif", ".avif", ".bmp", ".gif"),
)
RAW_SUFFIXES = (
    *(".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".raf", ".orf"),
    *(".rw2", ".pef", ".raw", ".3fr", ".iiq", ".x3f", ".erf", ".mef", ".mos", ".mrw", ".kdc"),
)
"""Suffixes of camera raw files, which are not read."""

DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
"""Exceptions for a file that cannot be decoded. A file that cannot be read raises
`PictureReadError` instead."""

JPEG_FORMATS = ("JPEG", "MPO")
"""Pillow's names of the formats whose files start with a JPEG."""

DEFAULT_PICTURE_GB = 2.0
"""Memory that decoding a picture may take, in GB, unless `limit_memory` or the environment variable
AUTHFACE_PICTURE_GB states another limit."""

DECODE_SECONDS = 60.0
"""Time that decoding a picture may take where no other time limit applies."""

PNG_EXIF_MARKS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Names in a PNG under which Pillow finds EXIF tags, the orientation included."""

OWN_BUFFER_FORMATS = ("WEBP", "AVIF", "HEIF")
"""Formats whose decoders keep two pictures of 4 bytes per pixel besides Pillow's."""

TRANSPOSED_ORIENTATIONS = tuple(
    value for value, orientation in ORIENTATIONS.items() if orientation.swaps_axes
)
"""EXIF orientations that swap width and height."""

EXIF_IFD = 0x8769
ORIENTATION = 0x0112
TIFF_WIDTH = 0x0100
TIFF_TILE_WIDTH = 0x0142
TIFF_TILE_LENGTH = 0x0143
MAX_MESSAGE_BYTES = 10_000

EXIF_PREFIX = b"Exif\0\0"
MAX_EXIF_BLOCKS = 64
"""Largest number of EXIF blocks of a JPEG. Programs write one."""


class PictureReadError(Exception):
    """A file could not be read, for example because its drive is away; it may succeed later."""


PICTURE_ERRORS = (PictureReadError, *DECODE_ERRORS)
"""Exceptions for a file that cannot be read or decoded."""


class PictureTooLargeError(ValueError):
    """Decoding a picture would take more memory than is allowed.

    Attributes:
        needed_gb: Memory that it would take.
        limit_gb: Memory that is allowed.
    """

    def __init__(self, what: str, needed_gb: float, limit_gb: float) -> None:
        super().__init__(
            f"{what} would take {needed_gb:.1f} GB of memory, and the limit is {limit_gb:g} GB "
            "(limits.picture_gb in authface.toml; AUTHFACE_PICTURE_GB outside a workspace)"
        )
        self.needed_gb = needed_gb
        self.limit_gb = limit_gb


# The size of a picture is limited below, by memory.
Image.MAX_IMAGE_PIXELS = None

# Pillow logs some of the errors that it raises as well.
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def _register_decoders() -> list[str]:
    """Load the decoders of the supported formats. Returns Pillow's names of them.

    A multi-picture file (MPO) is opened by the JPEG decoder.
    """
    from PIL import (  # noqa: F401
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        WebPImagePlugin,
    )

    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    names = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
    return [name for name in names if name in Image.OPEN]


_FORMATS = _register_decoders()
_memory_limit_gb: float | None = None


def limit_memory(limit_gb: float) -> None:
    """Set the memory that decoding one picture may take in this process, in GB."""
    global _memory_limit_gb
    _memory_limit_gb = limit_gb


def memory_limit_gb() -> float:
    """Memory that decoding one picture may take, in GB.

    Raises:
        UserError: If AUTHFACE_PICTURE_GB is not a number.
    """
    if _memory_limit_gb is not None:
        return _memory_limit_gb
    text = os.environ.get("AUTHFACE_PICTURE_GB", str(DEFAULT_PICTURE_GB))
    try:
        return float(text)
    except ValueError:
        raise UserError(f"AUTHFACE_PICTURE_GB must be a number, not {text!r}") from None


def read_file(path: Path) -> bytes:
    """Read a picture file.

    Args:
        path: The file.

    Raises:
        PictureReadError: If the file cannot be read.
        PictureTooLargeError: If the file is larger than the memory that a picture may take.
    """
    try:
        size_gb = path.stat().st_size / 1e9
        if size_gb > memory_limit_gb():
            raise PictureTooLargeError("the file", size_gb, memory_limit_gb())
        return path.read_bytes()
    except OSError as error:
        raise _read_error(path, error) from error


def _read_error(path: object, error: OSError) -> PictureReadError:
    return PictureReadError(f"cannot read {path}: {error.strerror or error}")


def open_image(source: bytes | Path | BinaryIO) -> ImageFile.ImageFile:
    """Open a picture without decoding it, as `PIL.Image.open` does.

    Args:
        source: The content of the file, its path, or the file opened for reading.

    Returns:
        The opened picture; of a file with several pictures, the first. Decoding may still raise one
        of `DECODE_ERRORS`.

    Raises:
        PictureReadError: If the file cannot be read.
        PictureTooLargeError: If decoding would take more memory than is allowed.
        Exception: One of `DECODE_ERRORS` if it is not a picture of a supported format.
    """
    if isinstance(source, Path):
        data = read_file(source)
    else:
        data = source if isinstance(source, bytes) else source.read()
    _check_metadata(data)
    check_scans(data)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.UnidentifiedImageError:
        raise ValueError("it is not a picture of a supported format") from None
    except (RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"damaged file ({type(error).__name__}: {error})") from error
    _check_memory(image, len(data))
    return image


def _check_metadata(data: bytes) -> None:
    """Refuse a file whose EXIF metadata would take a decoder too much memory or time."""
    if data.startswith(TIFF_MAGIC):
        check_directories(data)
        return
    if not data.startswith((b"\xff\xd8", b"\x89PNG", b"RIFF")) and data[4:8] != b"ftyp":
        return
    if data.count(EXIF_PREFIX) > MAX_EXIF_BLOCKS:
        raise ValueError(f"it has more than {MAX_EXIF_BLOCKS} blocks of EXIF metadata")
    position = data.find(EXIF_PREFIX)
    while position >= 0:
        start = position + len(EXIF_PREFIX)
        if data.startswith(TIFF_MAGIC, start):
            check_directories(data, start)
        position = data.find(EXIF_PREFIX, start)


def _check_memory(image: ImageFile.ImageFile, file_bytes: int) -> None:
    """Refuse a picture whose decoding takes too much memory.

    The peak is reached after decoding, while the colours are converted. The figures are
    measured peaks, rounded up; of AVIF and HEIF they are too high.
    """
    width, height = image.size
    if image.mode == "RGBA":
        bytes_per_pixel = 16  # the picture, its background, the composite and its RGB copy
    elif image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        bytes_per_pixel = 20  # and its conversion to RGBA
    elif image.mode.startswith("I"):
        bytes_per_pixel = 17  # 16 or 32 bits, scaled in floating point
    elif image.mode == "CMYK":
        bytes_per_pixel = 13  # the coefficients of a progressive JPEG, and its four channels
    else:
        bytes_per_pixel = 11  # the RGB picture and its pixels, twice while they are copied
    if image.format in OWN_BUFFER_FORMATS:
        bytes_per_pixel += 8
    num_pixels = width * height
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        num_pixels = max(num_pixels, _largest_tile(image))
    # Blanking the location copies the file.
    needed_gb = max(num_pixels * bytes_per_pixel + file_bytes, 2 * file_bytes) / 1e9
    if needed_gb > memory_limit_gb():
        what = f"decoding {width} x {height} pixels ({image.mode})"
        raise PictureTooLargeError(what, needed_gb, memory_limit_gb())


def _largest_tile(image: TiffImagePlugin.TiffImageFile) -> int:
    """Pixels of a tile of a TIFF, which may be larger than the picture."""
    sides = (image.tag_v2.get(tag, 0) for tag in (TIFF_TILE_WIDTH, TIFF_TILE_LENGTH))
    width, height = (side if isinstance(side, int) else 0 for side in sides)
    return width * height


@contextmanager
def _printed_as_warnings() -> Iterator[None]:
    """Turn what a C library prints to stderr into warnings."""
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines = file.read(MAX_MESSAGE_BYTES).decode("utf-8", "replace").splitlines()
            for line in dict.fromkeys(lines):
                warnings.warn(line.removeprefix("tempfile.tif: "), stacklevel=3)


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

    The properties and methods raise `PictureReadError` if the file cannot be read, and one of
    `DECODE_ERRORS` if it cannot be decoded.

    Args:
        read: Returns the content of the file. It is called at most once.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._decoded: dict[int, np.ndarray] = {}

    @cached_property
    def data(self) -> bytes:
        """The unmodified content of the file."""
        try:
            return self._read()
        except OSError as error:
            raise _read_error(error.filename or "the file", error) from error

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

    @cached_property
    def _header(self) -> _Header:
        data = self.data
        with decoding(data), open_image(data) as image:
            exif = _read_exif(image, data)
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
        orientation = cast(int, self.exif.get(ORIENTATION, 1))
        return JpegRegionDecoder(self.data, orientation, open_image)

    def _decode(self, long_side_px: int) -> np.ndarray:
        """Decode the photograph with its longer side at `long_side_px`."""
        data = self.data
        with decoding(data):
            image: Image.Image = open_image(data)
            full_px = max(self.size_px)
            if long_side_px < full_px:
                scale = long_side_px / full_px
                draft_size_px = (
                    max(round(image.width * scale), 1),
                    max(round(image.height * scale), 1),
                )
                image.draft("RGB", draft_size_px)

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


def _read_exif(image: Image.Image, data: bytes) -> Image.Exif:
    """The EXIF tags of a picture, without decoding a PNG that has none.

    Metadata may follow the pixels of a PNG, so that Pillow decodes all of it to look for them.
    """
    if image.format == "PNG" and not any(mark in data for mark in PNG_EXIF_MARKS):
        return Image.Image.getexif(image)
    return image.getexif()


@contextmanager
def decoding(data: bytes) -> Iterator[None]:
    """Give every failure of a decoder the form of a `DECODE_ERRORS`, and its messages of warnings.

    Decoders raise many kinds of exceptions for damaged files: Pillow a ZeroDivisionError or
    KeyError, libavif a RuntimeError. libtiff prints to stderr. Where no time
    limit runs, as in the engine, decoding may take `DECODE_SECONDS`.

    Args:
        data: The content of the file that is decoded in the block.

    Raises:
        Exception: One of `DECODE_ERRORS`.
    """
    limit = nullcontext() if has_time_limit() else time_limit(DECODE_SECONDS, ends_process=False)
    try:
        with limit, _printed_as_warnings() if data.startswith(TIFF_MAGIC) else nullcontext():
            yield
    except DECODE_ERRORS:
        raise
    except TimeLimitError as error:
        if has_time_limit():
            raise
        raise ValueError(f"decoding takes longer than {DECODE_SECONDS:g} s") from error
    except (RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"damaged file ({type(error).__name__}: {error})") from error


def decode_image(data: bytes) -> np.ndarray:
    """Decode the content of a picture file.

    Args:
        data: The content of the file.

    Returns:
        (height, width, 3) uint8 sRGB, upright.

    Raises:
        PictureTooLargeError: If decoding would take more memory than is allowed.
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
