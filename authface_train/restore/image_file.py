"""Rewrites the file of a photograph with some pixels changed.

The format, metadata, colour profile and alpha channel are kept. Pixels stay in the colour space of
the file: only what is pasted into them is converted.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin

from authface_data.images.open import JPEG_FORMATS, decoding, open_image, read_file
from authface_train.restore import jpeg_blocks
from authface_train.restore.file_metadata import (
    copy_png_chunks,
    fits_compressed_tiff,
    jpeg_segments,
    portable_exif,
)
from authface_train.restore.jpeg_blocks import Box
from manifests.support.files import write_atomic

LOSSY_FORMATS = {"HEIF": "HEIC", "HEIC": "HEIC", "AVIF": "AVIF", "GIF": "GIF"}
"""Formats whose pixels would all change if they were written again, and their names."""
SUPPORTED_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")
LOSSLESS_TIFF_COMPRESSIONS = (
    "raw",
    "tiff_lzw",
    "tiff_adobe_deflate",
    "tiff_deflate",
    "packbits",
    "zstd",
)

TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the transpose that makes the stored pixels upright."""

INVERSE = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
"""Inverse of each transpose that is not an involution."""


class UnsupportedImageError(ValueError):
    """A picture that can be decoded but not restored.

    The message is a predicate without a subject, such as "has several frames; ...": callers put the
    name of the file in front of it.
    """


class ImageFile:
    """The file of a photograph, decoded, which can be written again with changed pixels.

    Args:
        path: The file.

    Attributes:
        data: Content of the file.
        image: The picture as Pillow decoded it, in the stored orientation.
        pixels: (height, width, 3) uint8, upright, in the colour space of the file.
        alpha: (height, width) uint8 in the stored orientation, or None if the file is opaque.

    Raises:
        UnsupportedImageError: If the file could not be written again without changing it.
        OSError, SyntaxError, ValueError: Pillow's errors for a file that cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.data = read_file(path)
        self.image = open_image(self.data)
        _check_supported(self.image)
        self.image.load()

        # The orientation is read after loading: Pillow rotates a TIFF while it loads, and then
        # resets the tag.
        orientation = self.image.getexif().get(ExifTags.Base.Orientation, 1)
        self._to_upright = TO_UPRIGHT.get(orientation)

        mode = self.image.mode
        has_alpha = "transparency" in self.image.info or mode in ("RGBA", "LA", "PA")
        self.alpha = np.asarray(self.image.convert("RGBA"))[..., 3] if has_alpha else None
        self._is_grey = mode in ("L", "LA", "1")

        upright = self.image.convert("RGB")
        if self._to_upright is not None:
            upright = upright.transpose(self._to_upright)
        self.pixels = np.asarray(upright)

        profile = self.image.info.get("icc_profile")
        self._from_srgb = _transform_from_srgb(profile, "L" if self._is_grey else "RGB")

    def to_file_colours(self, srgb: np.ndarray) -> np.ndarray:
        """Convert sRGB pixels to the colour space of the file.

        Args:
            srgb: (height, width, 3) uint8 sRGB.

        Returns:
            (height, width, 3) uint8; three equal channels if the file is grey.
        """
        image = Image.fromarray(srgb)
        if self._from_srgb is not None:
            converted = ImageCms.applyTransform(image, self._from_srgb)
            assert converted is not None
            image = converted
        if self._is_grey:
            image = image.convert("L")
        return np.asarray(image.convert("RGB"))

    def write(self, pixels: np.ndarray, changed_px: Sequence[Box], path: Path) -> None:
        """Write the file again with other pixels.

        Pixels outside the changed boxes decode to the same values as in the original file: blocks
        of a JPEG are copied. If the size differs from the original, all pixels are new.

        Args:
            pixels: (height, width, 3) uint8, upright, in the colour space of the file.
            changed_px: (left, top, right, bottom) pixel edges of the regions that may differ from
                `self.pixels`.
            path: The file to write.

        Raises:
            UnsupportedImageError: If the file is a JPEG whose blocks cannot be copied.
        """
        stored = Image.fromarray(pixels)
        if self._to_upright is not None:
            stored = stored.transpose(self._to_stored)
        same_size = stored.size == self.image.size
        if self._is_grey:
            stored = stored.convert("L")
        if self.alpha is not None:
            alpha = Image.fromarray(self.alpha)
            if not same_size:
                alpha = alpha.resize(stored.size, Image.Resampling.LANCZOS)
            stored.putalpha(alpha)

        buffer = io.BytesIO()
        image_format = "JPEG" if self.image.format in JPEG_FORMATS else self.image.format
        with decoding(self.data):
            stored.save(buffer, image_format, **self._save_options())
        encoded = buffer.getvalue()
        if image_format == "JPEG" and same_size:
            boxes = self._stored_boxes(changed_px)
            try:
                encoded = jpeg_blocks.replace_blocks(self.data, encoded, boxes)
            except ValueError as error:
                raise UnsupportedImageError(str(error)) from error
        if image_format == "PNG":
            encoded = copy_png_chunks(self.data, encoded)
        write_atomic(path, encoded)

    @property
    def _to_stored(self) -> Image.Transpose:
        """Transpose from upright to the stored orientation."""
        assert self._to_upright is not None
        return INVERSE.get(self._to_upright, self._to_upright)

    def _save_options(self) -> dict[str, Any]:
        """Pillow options that keep the metadata and the encoding of the file."""
        info = self.image.info
        if self.image.format == "PNG":
            return {}  # the metadata are copied afterwards
        if isinstance(self.image, JpegImagePlugin.JpegImageFile):
            return self._jpeg_options(self.image)

        options: dict[str, Any] = {
            name: info[name] for name in ("icc_profile", "dpi") if info.get(name)
        }
        if self.image.format == "TIFF":
            exif = portable_exif(self.image)
            compression = info.get("compression")
            if not fits_compressed_tiff(exif):
                compression = "raw"
            is_lossless = compression in LOSSLESS_TIFF_COMPRESSIONS
            options["compression"] = compression if is_lossless else "tiff_lzw"
            options["exif"] = exif
        elif info.get("exif"):
            options["exif"] = info["exif"]

        if self.image.format == "WEBP":
            # A lossy file could not be written again with the same pixels.
            options["lossless"] = True
            options["exact"] = True
            if info.get("xmp"):
                options["xmp"] = info["xmp"]
        return options

    @staticmethod
    def _jpeg_options(image: JpegImagePlugin.JpegImageFile) -> dict[str, Any]:
        """Pillow options that keep the metadata and the encoding of a JPEG."""
        options: dict[str, Any] = {
            "extra": jpeg_segments(image),
            "qtables": image.quantization,
            "progressive": bool(image.info.get("progressive")),
        }
        if image.info.get("dpi"):
            options["dpi"] = image.info["dpi"]
        subsampling = JpegImagePlugin.get_sampling(image)
        if subsampling >= 0:
            options["subsampling"] = subsampling
        return options

    def _stored_boxes(self, boxes_px: Sequence[Box]) -> list[Box]:
        """Boxes of the upright picture in the stored orientation."""
        if self._to_upright is None:
            return list(boxes_px)
        stored_boxes = []
        for left, top, right, bottom in boxes_px:
            region = np.zeros(self.pixels.shape[:2], np.uint8)
            region[top:bottom, left:right] = 1
            box = Image.fromarray(region).transpose(self._to_stored).getbbox()
            if box is not None:
                stored_boxes.append(box)
        return stored_boxes


def _check_supported(image: Image.Image) -> None:
    """Raise UnsupportedImageError for a picture that cannot be written again unchanged."""
    has_16_bits = ";16" in str(getattr(image, "tile", ""))
    if image.mode not in SUPPORTED_MODES or has_16_bits:
        is_deep = has_16_bits or image.mode.startswith(("I", "F"))
        problem = "has 16 bits per channel" if is_deep else f"is {image.mode}"
        raise UnsupportedImageError(
            f"{problem} and cannot be written back unchanged; save it as 8-bit RGB first"
        )
    if image.format in LOSSY_FORMATS:
        raise UnsupportedImageError(
            f"is {LOSSY_FORMATS[image.format]} and cannot be written back unchanged; save it as "
            "JPEG or PNG first"
        )
    if getattr(image, "n_frames", 1) > 1 and image.format not in JPEG_FORMATS:
        raise UnsupportedImageError("has several frames; save the one to restore as a single file")


def _transform_from_srgb(icc_profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from sRGB into an ICC profile.

    Args:
        icc_profile: Profile of the file.
        mode: "RGB" or "L", the mode of the profile's pixels.

    Returns:
        The transform, or None without a profile or for one that is not a valid output profile.
    """
    if not icc_profile:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), profile, "RGB", mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
