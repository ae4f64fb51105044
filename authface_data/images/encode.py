"""Encoding pictures: small files for pages and requests, data URIs, and lossless crops."""

from __future__ import annotations

import base64
import io
from typing import Literal

import numpy as np
from PIL import Image

ImageFormat = Literal["JPEG", "WEBP", "PNG"]


def encode_image(
    picture: Image.Image | np.ndarray, image_format: ImageFormat = "JPEG", quality: int = 90
) -> bytes:
    """Encode a picture.

    Args:
        picture: A PIL image, or (height, width, 3) uint8 RGB.
        image_format: "JPEG", "WEBP" or "PNG".
        quality: 1 to 100; ignored for PNG.

    Returns:
        The content of the encoded file.
    """
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    options = {} if image_format == "PNG" else {"quality": quality}
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def data_uri(
    picture: Image.Image | np.ndarray, image_format: ImageFormat = "JPEG", quality: int = 90
) -> str:
    """Encode a picture as a data URI.

    Args:
        picture: A PIL image, or (height, width, 3) uint8 RGB.
        image_format: "JPEG", "WEBP" or "PNG".
        quality: 1 to 100; ignored for PNG.

    Returns:
        The URI, with the file in Base64.
    """
    return _to_uri(encode_image(picture, image_format, quality), image_format)


def lossless_data_uri(pixels: np.ndarray) -> str:
    """Encode a picture as lossless WebP in a data URI, smaller than `encode_lossless` does.

    Args:
        pixels: (height, width, 3) uint8 RGB.

    Returns:
        The URI, with the file in Base64.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, method=2)
    return _to_uri(buffer.getvalue(), "WEBP")


def encode_lossless(pixels: np.ndarray, crop_format: Literal["png", "webp"]) -> bytes:
    """Encode a crop without loss and without metadata, with settings that favour speed over size.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        crop_format: "png", or "webp" for lossless WebP.

    Returns:
        The content of the encoded file.
    """
    buffer = io.BytesIO()
    if crop_format == "webp":
        Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=0, method=0)
    else:
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _to_uri(data: bytes, image_format: ImageFormat) -> str:
    return f"data:image/{image_format.lower()};base64,{base64.b64encode(data).decode('ascii')}"
