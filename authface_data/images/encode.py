"""Pictures encoded for pages and requests: bytes of a small file, and data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def encode_image(
    picture: Image.Image | np.ndarray, image_format: str = "JPEG", quality: int = 90
) -> bytes:
    """Encode a picture.

    Args:
        picture: A PIL image, or (height, width, 3) uint8 RGB.
        image_format: "JPEG", "WEBP" or "PNG".
        quality: 1 to 100; ignored for PNG.
    """
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    options = {} if image_format == "PNG" else {"quality": quality}
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def data_uri(
    picture: Image.Image | np.ndarray, image_format: str = "JPEG", quality: int = 90
) -> str:
    """A picture as a data URI; arguments as for `encode_image`."""
    data = encode_image(picture, image_format, quality)
    return f"data:image/{image_format.lower()};base64,{base64.b64encode(data).decode('ascii')}"
