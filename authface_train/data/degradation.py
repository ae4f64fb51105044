"""Synthetic degradations: blur, downscaling, noise, JPEG and colour changes, made on the fly.

The order of the operations and the preset `gfpgan` follow GFPGAN (Wang et al. 2021); the other
presets but `high-iso` have the ranges of BFRffusion (Chen et al. 2024), CodeFormer and DiffBIR. All
operations work on RGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from authface_train.data.blur import blur_and_resize, gaussian_kernel
from manifests.support.errors import UserError

REFERENCE_PX = 512
"""Side of the pictures that the ranges of blur and noise are meant for."""
MAX_SHIFT = 20 / 255
"""Largest colour shift per channel."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in the grey value of a pixel."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""The operations of the colour jitter, as numbered in `DegradationParams.jitter_order`."""


@dataclass(frozen=True)
class DegradationRanges:
    """The ranges that degradation parameters are drawn from, (low, high) each."""

    sigma_px: tuple[float, float]
    """Standard deviation of the blur, in pixels."""
    down: tuple[float, float]
    """Downscaling factor; below 1 it enlarges."""
    noise: tuple[float, float]
    """Standard deviation of the Gaussian noise, in grey levels of 255."""
    jpeg: tuple[int, int]
    """JPEG quality, whole numbers including both ends."""
    p_shift: float = 0.0
    """Probability of a colour shift per channel."""
    p_jitter: float = 0.0
    """Probability of colour jitter."""
    p_grey: float = 0.0
    """Probability of conversion to grey."""
    rounded: bool = True
    """Whether the result is rounded to 8 bits."""


PRESETS = {
    "gfpgan": DegradationRanges(
        sigma_px=(0.1, 10),
        down=(0.8, 8),
        noise=(0, 20),
        jpeg=(60, 100),
        p_shift=0.3,
        p_jitter=0.3,
        p_grey=0.01,
    ),
    "bfrffusion": DegradationRanges(
        sigma_px=(0.1, 10), down=(0.8, 8), noise=(0, 20), jpeg=(60, 100)
    ),
    "codeformer-large": DegradationRanges(
        sigma_px=(1, 15), down=(4, 30), noise=(0, 20), jpeg=(30, 80)
    ),
    "codeformer-small": DegradationRanges(
        sigma_px=(0.1, 10), down=(1, 12), noise=(0, 15), jpeg=(60, 100)
    ),
    "diffbir": DegradationRanges(
        sigma_px=(0.1, 12), down=(1, 12), noise=(0, 15), jpeg=(30, 100), rounded=False
    ),
    # Small faces of a dark scene: strong noise, little blur. A model trained for an hour on a CPU
    # learns to remove it, which no model of that size does with the blur of the other presets.
    "high-iso": DegradationRanges(sigma_px=(0.5, 6), down=(5, 10), noise=(30, 60), jpeg=(40, 90)),
}


def get_preset(name: str) -> DegradationRanges:
    """Look up a preset.

    Raises:
        UserError: If the preset is unknown.
    """
    if name not in PRESETS:
        raise UserError(f'unknown degradation preset "{name}"; choose from: {", ".join(PRESETS)}')
    return PRESETS[name]


@dataclass(frozen=True)
class DegradationParams:
    """The drawn parameters of one degradation. `authface degrade` stores them as columns."""

    sigmas_px: tuple[float, float]
    """Standard deviations of the blur along its two axes, in pixels."""
    turn_rad: float
    """Rotation of the blur's axes, in radians."""
    down: float
    """Downscaling factor."""
    noise: float
    """Standard deviation of the noise, in grey levels of 255."""
    noise_seed: int
    """Seed of the noise values."""
    jpeg: int
    """JPEG quality."""
    shift: tuple[float, float, float] | None
    """Colour shift of R, G and B in [-1, 1], or None."""
    grey: bool
    """Whether the picture becomes grey."""
    jitter: tuple[float, float, float, float] | None
    """Factors of brightness, contrast and saturation and shift of hue in turns, or None."""
    jitter_order: tuple[int, int, int, int]
    """Order of the jitter's operations: 0 brightness, 1 contrast, 2 saturation, 3 hue."""
    rounded: bool
    """Whether the result is rounded to 8 bits."""


def draw_params(ranges: DegradationRanges, rng: np.random.Generator) -> DegradationParams:
    """Draw the parameters of one degradation.

    Args:
        ranges: The ranges to draw from.
        rng: Source of random numbers. Every parameter is drawn in a fixed order, used or not.
    """
    sigma_x, sigma_y = rng.uniform(*ranges.sigma_px, 2)
    turn_rad = rng.uniform(-np.pi, np.pi)
    is_isotropic = rng.uniform() < 0.5
    down = rng.uniform(*ranges.down)
    noise = rng.uniform(*ranges.noise)
    jpeg = int(rng.integers(ranges.jpeg[0], ranges.jpeg[1] + 1))
    noise_seed = int(rng.integers(2**62))
    red, green, blue = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 3)
    has_shift = rng.uniform() < ranges.p_shift
    is_grey = bool(rng.uniform() < ranges.p_grey)
    has_jitter = rng.uniform() < ranges.p_jitter
    brightness, contrast = rng.uniform(0.5, 1.5, 2)
    saturation = rng.uniform(0, 1.5)
    hue = rng.uniform(-0.1, 0.1)
    first, second, third, fourth = (int(operation) for operation in rng.permutation(4))

    shift = (float(red), float(green), float(blue))
    jitter = (float(brightness), float(contrast), float(saturation), float(hue))
    return DegradationParams(
        sigmas_px=(float(sigma_x), float(sigma_x if is_isotropic else sigma_y)),
        turn_rad=0.0 if is_isotropic else float(turn_rad),
        down=float(down),
        noise=float(noise),
        noise_seed=noise_seed,
        jpeg=jpeg,
        shift=shift if has_shift else None,
        grey=is_grey,
        jitter=jitter if has_jitter else None,
        jitter_order=(first, second, third, fourth),
        rounded=ranges.rounded,
    )


def degrade(image: np.ndarray, params: DegradationParams) -> np.ndarray:
    """Degrade a picture.

    Args:
        image: (height, width, 3) uint8 RGB, not changed. Blur and noise are meant for
            `REFERENCE_PX`.
        params: The degradation.

    Returns:
        (height, width, 3) float32 RGB in [0, 1].
    """
    import cv2

    height, width = image.shape[:2]
    low_width = max(int(width // params.down), 1)
    low_height = max(int(height // params.down), 1)

    kernel = gaussian_kernel(params.sigmas_px, params.turn_rad)
    levels = blur_and_resize(image, kernel, low_width, low_height)
    noise = np.random.default_rng(params.noise_seed).standard_normal(levels.shape, np.float32)
    noise *= params.noise
    levels += noise
    degraded = _compress_jpeg(levels, params.jpeg)
    degraded = np.asarray(cv2.resize(degraded, (width, height), interpolation=cv2.INTER_LINEAR))

    if params.shift:
        cv2.add(degraded, (*params.shift, 0.0), dst=degraded)
        np.clip(degraded, 0, 1, out=degraded)
    if params.grey:
        grey = cv2.cvtColor(degraded, cv2.COLOR_RGB2GRAY)
        degraded = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))
    if params.jitter:
        degraded = _jitter_colours(degraded, params.jitter, params.jitter_order)
    np.clip(degraded, 0, 1, out=degraded)
    if params.rounded:
        degraded *= 255
        np.rint(degraded, out=degraded)
        degraded /= 255
    return degraded


def resize_degraded(image: np.ndarray, side_px: int) -> np.ndarray:
    """Resize a degraded square picture.

    Args:
        image: (side, side, 3) float32.
        side_px: Side of the result. Smaller pictures average areas, larger ones are bilinear.

    Returns:
        (side_px, side_px, 3) float32; the picture itself if it has that size.
    """
    import cv2

    if len(image) == side_px:
        return image
    interpolation = cv2.INTER_AREA if side_px < len(image) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side_px, side_px), interpolation=interpolation))


def _compress_jpeg(levels: np.ndarray, quality: int) -> np.ndarray:
    """Encode a picture as JPEG and decode it again.

    Args:
        levels: (height, width, 3) float32 RGB in grey levels, 0 to 255; larger and smaller values
            are clipped. It is overwritten.
        quality: JPEG quality.

    Returns:
        (height, width, 3) float32 RGB in [0, 1].
    """
    import cv2

    np.clip(levels, 0, 255, out=levels)
    pixels = cv2.cvtColor(cv2.convertScaleAbs(levels), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    degraded = decoded.astype(np.float32)
    degraded /= 255
    return degraded


def _jitter_colours(
    image: np.ndarray, amounts: tuple[float, float, float, float], order: tuple[int, ...]
) -> np.ndarray:
    """Change brightness, contrast, saturation and hue in `order`; `image` is overwritten."""
    import cv2

    brightness, contrast, saturation, hue = amounts
    for operation in order:
        if operation == BRIGHTNESS:
            image *= brightness
        elif operation == CONTRAST:
            mean = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()
            image *= contrast
            image += (1 - contrast) * mean
        elif operation == SATURATION:
            mixture = saturation * np.eye(3) + (1 - saturation) * np.array(LUMA)
            cv2.transform(image, mixture, dst=image)
        else:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            # Hues of more than 360 degrees are converted like those of a full turn less.
            degrees = hue * 360 + (360 if hue < 0 else 0)
            cv2.add(hsv, (degrees, 0.0, 0.0, 0.0), dst=hsv)
            image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
        np.clip(image, 0, 1, out=image)
    return image
