"""What spoils a photograph, each by degrees; and what must not be taken for it. Crops are (H, H, 3) uint8."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def peppered(crop, share):
    rng = np.random.default_rng(1)
    made, hit = crop.copy(), rng.uniform(size=crop.shape[:2]) < share
    made[hit] = np.where(rng.uniform(size=(hit.sum(), 1)) < 0.5, 0, 255)
    return made


def noisy(crop, sigma):
    return _bytes(crop + np.random.default_rng(1).normal(0, sigma, crop.shape))


def blurred(crop, sigma):
    return cv2.GaussianBlur(crop, (0, 0), sigma)


def defocused(crop, radius):
    reach = int(np.ceil(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (np.hypot(rows, columns) <= radius + 0.25).astype(np.float32)
    return cv2.filter2D(crop, -1, disk / disk.sum())


def moved(crop, length, angle_deg=30):
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    line = cv2.warpAffine(
        line, cv2.getRotationMatrix2D((length // 2, length // 2), angle_deg, 1), (length, length)
    )
    return cv2.filter2D(crop, -1, line / line.sum())


def beautified(crop, times):
    """A surface blur, as beauty filters have it: edges stay."""
    for _ in range(times):
        crop = cv2.bilateralFilter(crop, 9, 18 + 6 * times, 3 + times)
    return crop


def median_filtered(crop, side):
    return cv2.medianBlur(crop, side)


def compressed(crop, quality):
    out = io.BytesIO()
    Image.fromarray(crop).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))


def posterised(crop, levels):
    step = 256 / levels
    return _bytes((np.floor(crop / step) + 0.5) * step)


def overexposed(crop, gain):
    return _bytes(crop * float(gain))


def underexposed(crop, levels):
    return _bytes(crop.astype(float) - levels)


def _enlarged(crop, factor, way):
    size = len(crop)
    small = cv2.resize(crop, (round(size / factor),) * 2, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=way)


def enlarged_bicubic(crop, factor):
    return _enlarged(crop, factor, cv2.INTER_CUBIC)


def enlarged_lanczos(crop, factor):
    return _enlarged(crop, factor, cv2.INTER_LANCZOS4)


def enlarged_linear(crop, factor):
    return _enlarged(crop, factor, cv2.INTER_LINEAR)


# Measure -> what spoils it, by growing degrees.
SPOILS = {
    "pepper": [(peppered, (0.002, 0.005, 0.01, 0.03))],
    "noise": [(noisy, (4, 8, 16, 30))],
    "sharpness": [(blurred, (2.5, 4, 7)), (defocused, (4, 6, 9)), (moved, (11, 15, 21))],
    "skin": [(beautified, (2, 3, 5)), (median_filtered, (9, 13))],
    "jpeg": [(compressed, (50, 30, 15, 8))],
    "banding": [(posterised, (48, 32, 20, 12))],
    "exposure": [(overexposed, (1.5, 1.8, 2.2)), (underexposed, (120, 145, 170))],
    "detail": [
        (enlarged_bicubic, (2, 3, 4)),
        (enlarged_lanczos, (2, 3, 4)),
        (enlarged_linear, (2, 3, 4)),
    ],
}


# Hard negatives: clean pictures that a careless measure would take for spoilt ones.


def at_night(crop, stops=2.0):
    """Two stops darker, in linear light, and nothing else wrong."""
    return _bytes(((crop / 255.0) ** 2.2 / 2**stops) ** (1 / 2.2) * 255)


def in_soft_light(crop):
    """The shading of the face mostly taken out, and the contrast lowered."""
    picture = crop.astype(np.float32)
    light = cv2.GaussianBlur(picture.mean(-1), (0, 0), 40)[..., None]
    return _bytes(picture * (128 / np.maximum(light, 20)) ** 0.6 * 0.9 + 10)


def reduced(crop, size):
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)


def separation(spoilt, clean) -> float:
    """AUC: how often a spoilt picture scores below a clean one, ties counting half."""
    spoilt, clean = np.array(spoilt)[:, None], np.array(clean)[None]
    return float(((spoilt < clean) + 0.5 * (spoilt == clean)).mean())
