"""FFHQ's published alignment, step by step: the reference for authface_data/faces/align.py."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

SUPERSAMPLED_PX = 4096


def align_by_recipe(image: Image.Image, quad: np.ndarray, size_px: int) -> Image.Image:
    """Cut out a quad by the published steps, with Pillow and SciPy.

    Args:
        image: The photograph.
        quad: (4, 2) pixel centres of the north-west, south-west, south-east and north-east corners.
        size_px: Side of the crop.

    Returns:
        The crop, size_px x size_px.
    """
    quad = quad.copy()
    quad_size = float(np.hypot(*(quad[3] - quad[0])))

    # Shrink.
    shrink = int(np.floor(quad_size / size_px * 0.5))
    if shrink > 1:
        shrunk_size = (int(np.rint(image.width / shrink)), int(np.rint(image.height / shrink)))
        image = image.resize(shrunk_size, Image.Resampling.LANCZOS)
        quad = quad / shrink
        quad_size = quad_size / shrink

    # Crop.
    border = max(int(np.rint(quad_size * 0.1)), 3)
    low = np.floor(quad.min(0)).astype(int)
    high = np.ceil(quad.max(0)).astype(int)
    box = (
        max(low[0] - border, 0),
        max(low[1] - border, 0),
        min(high[0] + border, image.width),
        min(high[1] + border, image.height),
    )
    image = image.crop(box)
    quad = quad - box[:2]

    # Pad.
    low = np.floor(quad.min(0)).astype(int)
    high = np.ceil(quad.max(0)).astype(int)
    pad = [
        max(-low[0] + border, 0),
        max(-low[1] + border, 0),
        max(high[0] - image.width + border, 0),
        max(high[1] - image.height + border, 0),
    ]
    if max(pad) > border - 4:
        pad = np.maximum(pad, int(np.rint(quad_size * 0.3)))
        image = _pad_by_reflection(image, pad, blur=quad_size * 0.02)
        quad = quad + pad[:2]

    # Transform.
    supersampled = image.transform(
        (SUPERSAMPLED_PX, SUPERSAMPLED_PX),
        Image.Transform.QUAD,
        (quad + 0.5).flatten(),
        Image.Resampling.BILINEAR,
    )
    return supersampled.resize((size_px, size_px), Image.Resampling.LANCZOS)


def _pad_by_reflection(image: Image.Image, pad: np.ndarray, blur: float) -> Image.Image:
    """Pad by a reflection that is blurred and fades to the median colour towards the outside.

    Args:
        image: The picture.
        pad: (4,) pixels to add on the left, top, right and bottom.
        blur: Standard deviation of the Gaussian in pixels.
    """
    left, top, right, bottom = pad
    pixels = np.pad(np.float32(image), ((top, bottom), (left, right), (0, 0)), "reflect")
    height, width, _ = pixels.shape
    y, x, _ = np.ogrid[:height, :width, :1]
    mask = np.maximum(
        1.0 - np.minimum(np.float32(x) / left, np.float32(width - 1 - x) / right),
        1.0 - np.minimum(np.float32(y) / top, np.float32(height - 1 - y) / bottom),
    )
    blurred = ndimage.gaussian_filter(pixels, [blur, blur, 0])
    pixels += (blurred - pixels) * np.clip(mask * 3.0 + 1.0, 0.0, 1.0)
    pixels += (np.median(pixels, axis=(0, 1)) - pixels) * np.clip(mask, 0.0, 1.0)
    return Image.fromarray(np.uint8(np.clip(np.rint(pixels), 0, 255)), "RGB")


def psnr(picture: np.ndarray | Image.Image, reference: np.ndarray | Image.Image) -> float:
    """Compute the PSNR of a picture.

    Args:
        picture: A picture with 8 bits per channel.
        reference: A picture of the same size.

    Returns:
        The PSNR in dB.
    """
    difference = np.asarray(picture, float) - np.asarray(reference, float)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))
