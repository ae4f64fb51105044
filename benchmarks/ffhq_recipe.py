"""FFHQ's published alignment, written out slowly: what authface_data/faces/align.py is measured against, and tested."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage


def recipe(image: Image.Image, quad: np.ndarray, size: int) -> Image.Image:
    """The crop (size, size) of a quad (4, 2) NW, SW, SE, NE: the published steps, one by one, with Pillow and scipy."""
    quad = quad.copy()
    qsize = float(np.hypot(*(quad[3] - quad[0])))
    shrink = int(np.floor(qsize / size * 0.5))
    if shrink > 1:
        image = image.resize(
            (int(np.rint(image.width / shrink)), int(np.rint(image.height / shrink))),
            Image.Resampling.LANCZOS,
        )
        quad, qsize = quad / shrink, qsize / shrink
    border = max(int(np.rint(qsize * 0.1)), 3)
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    crop = (
        max(low[0] - border, 0),
        max(low[1] - border, 0),
        min(high[0] + border, image.width),
        min(high[1] + border, image.height),
    )
    image, quad = image.crop(crop), quad - crop[:2]
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    pad = [
        max(-low[0] + border, 0),
        max(-low[1] + border, 0),
        max(high[0] - image.width + border, 0),
        max(high[1] - image.height + border, 0),
    ]
    if max(pad) > border - 4:
        pad = np.maximum(pad, int(np.rint(qsize * 0.3)))
        pixels = np.pad(np.float32(image), ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), "reflect")
        h, w, _ = pixels.shape
        y, x, _ = np.ogrid[:h, :w, :1]
        mask = np.maximum(
            1.0 - np.minimum(np.float32(x) / pad[0], np.float32(w - 1 - x) / pad[2]),
            1.0 - np.minimum(np.float32(y) / pad[1], np.float32(h - 1 - y) / pad[3]),
        )
        blur = qsize * 0.02
        pixels += (ndimage.gaussian_filter(pixels, [blur, blur, 0]) - pixels) * np.clip(
            mask * 3.0 + 1.0, 0.0, 1.0
        )
        pixels += (np.median(pixels, axis=(0, 1)) - pixels) * np.clip(mask, 0.0, 1.0)
        image = Image.fromarray(np.uint8(np.clip(np.rint(pixels), 0, 255)), "RGB")
        quad = quad + pad[:2]
    big = image.transform(
        (4096, 4096), Image.Transform.QUAD, (quad + 0.5).flatten(), Image.Resampling.BILINEAR
    )
    return big.resize((size, size), Image.Resampling.LANCZOS)


def psnr(a, b) -> float:
    """dB between two 8-bit pictures."""
    return float(
        10 * np.log10(255**2 / np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))
    )
