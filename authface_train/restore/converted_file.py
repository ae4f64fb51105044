"""Writes pictures in the format of the output file: restored faces, and converted photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from authface_data.images.open import decode_image, decoding, open_image, read_file
from authface_train.restore.file_metadata import converted_metadata
from authface_train.restore.jpeg_blocks import Box
from manifests.support.files import atomic_path

ENCODING: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
}
"""Pillow's options by its name of the format; all but JPEG are lossless."""


def save_picture(
    path: Path, pixels: np.ndarray, image_format: str, metadata: dict[str, Any] | None = None
) -> None:
    """Write a picture atomically.

    Args:
        path: The file to write.
        pixels: (height, width, 3) uint8 sRGB.
        image_format: Pillow's name of the format: a key of `ENCODING`.
        metadata: Further options of `Image.save`.
    """
    options = {**ENCODING[image_format], **(metadata or {})}
    if image_format == "TIFF" and metadata:
        # libtiff, which Pillow compresses with, cannot write all metadata.
        options["compression"] = "raw"
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, image_format, **options)


class ConvertedFile:
    """A photograph that is written in another format than its own.

    All pixels are converted to upright 8-bit sRGB without alpha, so files can be read that
    `ImageFile` refuses, such as HEIC. EXIF and XMP are kept.

    Args:
        path: The file.
        image_format: Pillow's name of the format to write: a key of `ENCODING`.

    Attributes:
        pixels: (height, width, 3) uint8 sRGB, upright.

    Raises:
        OSError, SyntaxError, ValueError: Pillow's errors for a file that cannot be decoded.
    """

    def __init__(self, path: Path, image_format: str) -> None:
        data = read_file(path)
        self.pixels = decode_image(data)
        self._format = image_format
        with decoding(data), open_image(data) as image:
            self._metadata = converted_metadata(image, image_format)

    def to_file_colours(self, srgb: np.ndarray) -> np.ndarray:
        """Return the pixels unchanged: the written file is sRGB.

        Args:
            srgb: (height, width, 3) uint8 sRGB.

        Returns:
            The same pixels.
        """
        return srgb

    def write(self, pixels: np.ndarray, changed_px: Sequence[Box], path: Path) -> None:
        """Write the photograph.

        Args:
            pixels: (height, width, 3) uint8 sRGB, upright.
            changed_px: Not used: all pixels are encoded anew.
            path: The file to write.
        """
        save_picture(path, pixels, self._format, self._metadata)
