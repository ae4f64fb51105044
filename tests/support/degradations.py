"""Artefacts in growing strength, and clean pictures that a measure may confuse with them.

Crops are (height, width, 3) uint8.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def add_pepper_noise(crop, fraction):
    """Replace a fraction of the pixels by black or white."""
    rng = np.random.default_rng(1)
    result = crop.copy()
    is_replaced = rng.uniform(size=crop.shape[:2]) < fraction
    is_black = rng.uniform(size=(is_replaced.sum(), 1)) < 0.5
    result[is_replaced] = np.where(is_black, 0, 255)
    return result


def add_gaussian_noise(crop, sigma):
    return _to_bytes(crop + np.random.default_rng(1).normal(0, sigma, crop.shape))


def blur_gaussian(crop, sigma):
    return cv2.GaussianBlur(crop, (0, 0), sigma)


def blur_defocus(crop, radius):
    """Blur with a disk, as an out-of-focus lens does."""
    reach = int(np.ceil(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (np.hypot(rows, columns) <= radius + 0.25).astype(np.float32)
    return cv2.filter2D(crop, -1, disk / disk.sum())


def blur_motion(crop, length, angle_deg=30):
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    rotation = cv2.getRotationMatrix2D((length // 2, length // 2), angle_deg, 1)
    line = cv2.warpAffine(line, rotation, (length, length))
    return cv2.filter2D(crop, -1, line / line.sum())


def smooth_skin(crop, passes):
    """Smooth surfaces and keep edges, as beauty filters do."""
    for _ in range(passes):
        crop = cv2.bilateralFilter(crop, 9, 18 + 6 * passes, 3 + passes)
    return crop


def filter_median(crop, side):
    return cv2.medianBlur(crop, side)


def compress_jpeg(crop, quality):
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def posterise(crop, levels):
    step = 256 / levels
    return _to_bytes((np.floor(crop / step) + 0.5) * step)


def overexpose(crop, gain):
    return _to_bytes(crop * float(gain))


def underexpose(crop, levels):
    return _to_bytes(crop.astype(float) - levels)


def _enlarge(crop, factor, interpolation):
    size = len(crop)
    small = cv2.resize(crop, (round(size / factor),) * 2, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=interpolation)


def enlarge_bicubic(crop, factor):
    return _enlarge(crop, factor, cv2.INTER_CUBIC)


def enlarge_lanczos(crop, factor):
    return _enlarge(crop, factor, cv2.INTER_LANCZOS4)


def enlarge_linear(crop, factor):
    return _enlarge(crop, factor, cv2.INTER_LINEAR)


DEGRADATIONS = {
    "pepper": [(add_pepper_noise, (0.002, 0.005, 0.01, 0.03))],
    "noise": [(add_gaussian_noise, (4, 8, 16, 30))],
    "sharpness": [
        (blur_gaussian, (2.5, 4, 7)),
        (blur_defocus, (4, 6, 9)),
        (blur_motion, (11, 15, 21)),
    ],
    "skin": [(smooth_skin, (2, 3, 5)), (filter_median, (9, 13))],
    "jpeg": [(compress_jpeg, (50, 30, 15, 8))],
    "banding": [(posterise, (48, 32, 20, 12))],
    "exposure": [(overexpose, (1.5, 1.8, 2.2)), (underexpose, (120, 145, 170))],
    "detail": [
        (enlarge_bicubic, (2, 3, 4)),
        (enlarge_lanczos, (2, 3, 4)),
        (enlarge_linear, (2, 3, 4)),
    ],
}
"""Measure -> the artefacts that it must find, each with strengths from weak to strong."""


# Hard negatives: clean pictures that a careless measure takes for pictures with artefacts.


def darken(crop, stops=2.0):
    """Lower the exposure in linear light without clipping, as in a picture taken at night."""
    return _to_bytes(((crop / 255.0) ** 2.2 / 2**stops) ** (1 / 2.2) * 255)


def flatten_light(crop):
    """Remove most of the shading of the face and lower the contrast, as soft light does."""
    image = crop.astype(np.float32)
    light = cv2.GaussianBlur(image.mean(-1), (0, 0), 40)[..., None]
    return _to_bytes(image * (128 / np.maximum(light, 20)) ** 0.6 * 0.9 + 10)


def downscale(crop, size):
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)


def auc(degraded_scores, clean_scores) -> float:
    """Area under the ROC curve: how often a degraded picture scores below a clean one."""
    degraded = np.array(degraded_scores)[:, None]
    clean = np.array(clean_scores)[None]
    return float(((degraded < clean) + 0.5 * (degraded == clean)).mean())
