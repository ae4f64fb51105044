"""Colour conversion: any picture to 8-bit sRGB, and sRGB to luma."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601 weights of R, G and B."""


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image of any mode to 8-bit sRGB.

    The ICC profile is applied, 16-bit grey is scaled down to 8 bits, and transparent pixels are
    composited over white. A profile that cannot be applied is ignored, as browsers do.

    Args:
        image: An opened image. Its `info` supplies the ICC profile.

    Returns:
        The image in mode RGB, of the same size.

    Raises:
        ValueError: If the image has 32 bits per channel, whose white level is undefined.
    """
    profile = image.info.get("icc_profile")
    if image.mode == "F" or (image.mode == "I" and np.asarray(image).max(initial=0) > 65535):
        raise ValueError("a 32-bit image has no defined white level; save it with 8 or 16 bits")

    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float32)
        image = Image.fromarray(np.clip(values / 257.0 + 0.5, 0, 255).astype(np.uint8))
        profile = None

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba).convert("RGB")

    if image.mode == "P":
        # A profile describes colours, so palette indices must be resolved before it is applied.
        image = image.convert("RGB")

    if profile:
        converted = _apply_profile(image, profile)
        if converted is not None:
            return converted
    return image if image.mode == "RGB" else image.convert("RGB")


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert from an ICC profile to sRGB, or return None if the profile cannot be applied."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def luma(picture: np.ndarray) -> np.ndarray:
    """Compute the luma of a picture with the weights of ITU-R BT.601.

    Args:
        picture: (height, width, 3) uint8 sRGB.

    Returns:
        (height, width) float32 in [0, 255], from the gamma-encoded values.
    """
    return picture.astype(np.float32) @ LUMA_WEIGHTS
