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


def add_pepper_to_photo(picture, fraction, size):
    """Reduce or enlarge a picture to a side of `size`, add noise, and return to 512 px."""
    resized = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    noisy = add_pepper_noise(resized, fraction)
    interpolation = cv2.INTER_AREA if size > 512 else cv2.INTER_CUBIC
    return cv2.resize(noisy, (512, 512), interpolation=interpolation)


# Where FFHQ alignment places eyes with brows, nostrils and mouth: left, top, right, bottom, as
# shares of the crop's side.
SHARP_REGIONS = ((0.26, 0.34, 0.74, 0.56), (0.42, 0.6, 0.58, 0.67), (0.35, 0.68, 0.65, 0.82))


def _filter_on_skin(crop, filtered):
    """Apply a filter to the face, and leave eyes, mouth, hair and background as they are."""
    size = len(crop)
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    oval = ((columns - 0.5) / 0.28) ** 2 + ((rows - 0.55) / 0.38) ** 2 <= 1
    mask = oval.astype(np.float32)
    for left, top, right, bottom in SHARP_REGIONS:
        mask[round(top * size) : round(bottom * size), round(left * size) : round(right * size)] = 0
    mask = cv2.GaussianBlur(mask, (0, 0), 3)[..., None]
    return _to_bytes(crop * (1 - mask) + filtered * mask)


def smooth_surfaces(picture, passes):
    """Smooth surfaces and keep edges, everywhere."""
    for _ in range(passes):
        picture = cv2.bilateralFilter(picture, 9, 18 + 6 * passes, 3 + passes)
    return picture


def smooth_skin(crop, passes):
    """Smooth surfaces and keep edges on the skin, as beauty filters do."""
    return _filter_on_skin(crop, smooth_surfaces(crop, passes))


def filter_skin_median(crop, side):
    return _filter_on_skin(crop, cv2.medianBlur(crop, side))


def filter_skin_guided(crop, radius):
    """Smooth with a guided filter (He et al. 2013) whose guide is the picture itself."""
    box = (2 * radius + 1, 2 * radius + 1)
    image = crop / np.float32(255)
    mean = cv2.blur(image, box)
    variance = cv2.blur(image**2, box) - mean**2
    slope = variance / (variance + 0.1**2)
    offset = cv2.blur(mean * (1 - slope), box)
    return _filter_on_skin(crop, 255 * (cv2.blur(slope, box) * image + offset))


def paint_oil(crop, radius, levels=12):
    """Give each pixel the mean colour of the most frequent brightness in its neighbourhood."""
    box = (2 * radius + 1, 2 * radius + 1)
    brightness = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(int) * levels // 256
    highest = np.zeros(crop.shape[:2], np.float32)
    painted = np.zeros(crop.shape, np.float32)
    for level in range(levels):
        is_level = (brightness == level).astype(np.float32)
        share = cv2.blur(is_level, box)
        colour = cv2.blur(crop * is_level[..., None], box) / np.maximum(share, 1e-6)[..., None]
        is_most_frequent = share > highest
        highest[is_most_frequent] = share[is_most_frequent]
        painted[is_most_frequent] = colour[is_most_frequent]
    return _to_bytes(painted)


def draw_cartoon(crop, passes):
    """Flatten the surfaces and draw the edges in black."""
    flat = crop
    for _ in range(passes):
        flat = cv2.bilateralFilter(flat, 9, 40, 7)
    grey = cv2.medianBlur(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), 5)
    mode = cv2.ADAPTIVE_THRESH_MEAN_C
    is_surface = cv2.adaptiveThreshold(grey, 255, mode, cv2.THRESH_BINARY, 9, 6)
    return cv2.bitwise_and(flat, flat, mask=is_surface)


def print_halftone(crop, share, period=5.0):
    """Mix with a screen of dots, rotated differently for each channel, as in a printed picture."""
    rows, columns = np.mgrid[: len(crop), : len(crop)]
    printed = np.empty(crop.shape, np.float32)
    for channel, angle_deg in enumerate((15, 75, 0)):
        angle = np.radians(angle_deg)
        across = columns * np.cos(angle) + rows * np.sin(angle)
        down = rows * np.cos(angle) - columns * np.sin(angle)
        screen = np.cos(across * 2 * np.pi / period) + np.cos(down * 2 * np.pi / period)
        printed[..., channel] = np.clip(
            (crop[..., channel] - 127.5 - 63 * screen) * 3 + 127, 0, 255
        )
    dots = cv2.GaussianBlur(printed, (0, 0), 0.7)
    return _to_bytes((1 - share) * crop + share * dots)


def print_stripes(crop, amplitude, period=6.3, angle_deg=2.0):
    """Add fine stripes, as a scan of textured paper or of a screen has them."""
    rows, columns = np.mgrid[: len(crop), : len(crop)]
    angle = np.radians(angle_deg)
    across = columns * np.cos(angle) + rows * np.sin(angle)
    return _to_bytes(crop + amplitude * np.sin(2 * np.pi * across / period)[..., None])


def draw_box(picture, width, colour=(0, 255, 0)):
    """Draw the box of a face detector around the face of a crop."""
    size = len(picture)
    corners = [round(share * size) for share in (0.24, 0.3, 0.76, 0.84)]
    return cv2.rectangle(picture.copy(), corners[:2], corners[2:], colour, width)


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
    "skin": [
        (smooth_skin, (3, 5)),
        (filter_skin_median, (13, 17)),
        (filter_skin_guided, (4,)),
    ],
    "jpeg": [(compress_jpeg, (50, 30, 15, 8))],
    "banding": [(posterise, (48, 32, 20, 12))],
    "exposure": [(overexpose, (1.5, 1.8, 2.2)), (underexpose, (120, 145, 170))],
    "detail": [
        (enlarge_bicubic, (2, 3, 4)),
        (enlarge_lanczos, (2, 3, 4)),
        (enlarge_linear, (2, 3, 4)),
    ],
    "photographic": [
        (print_halftone, (0.3, 0.6)),
        (print_stripes, (5, 9)),
        (paint_oil, (6,)),
        (draw_cartoon, (2,)),
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
