"""Degradations on the fly, after GFPGAN (Wang 2021) and BFRffusion (Chen 2024): blur, downscale, noise, JPEG, colour.

All on RGB in [0, 1]; the values assume a picture of 512 px.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from authface_train.data.blur import blur_and_resize, gaussian_kernel
from manifests.support.errors import UserError

REFERENCE_PX = 512  # the side that blur and noise are meant for: pictures are brought to it first


@dataclass(frozen=True)
class Degradation:
    """Ranges that are drawn from. sigma_px: blur; down: factor; noise: standard deviation of 255; jpeg: quality, whole numbers;
    probabilities of a shift per channel, of colour jitter and of grey; rounded: whether the result is rounded to 8 bit."""

    sigma_px: tuple[float, float]
    down: tuple[float, float]
    noise: tuple[float, float]
    jpeg: tuple[int, int]
    p_shift: float = 0.0
    p_jitter: float = 0.0
    p_grey: float = 0.0
    rounded: bool = True


PRESETS = {
    "gfpgan": Degradation(
        (0.1, 10), (0.8, 8), (0, 20), (60, 100), p_shift=0.3, p_jitter=0.3, p_grey=0.01
    ),
    "bfrffusion": Degradation((0.1, 10), (0.8, 8), (0, 20), (60, 100)),
    "codeformer-large": Degradation((1, 15), (4, 30), (0, 20), (30, 80)),
    "codeformer-small": Degradation((0.1, 10), (1, 12), (0, 15), (60, 100)),
    "diffbir": Degradation((0.1, 12), (1, 12), (0, 15), (30, 100), rounded=False),
}
SHIFT = 20 / 255


def preset(name: str) -> Degradation:
    """The preset of that name. Raises UserError for an unknown one."""
    if name not in PRESETS:
        raise UserError(f"no degradation {name!r}: there are {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True)
class DegradationParams:
    """What one picture gets. sigmas_px, turn_rad: the blur's axes; down: factor; noise: standard deviation of 255, its values
    from noise_seed; jpeg: quality; shift: per channel, of 1; jitter: brightness, contrast, saturation, hue in turns, and the
    order they are applied in (0 brightness, 1 contrast, 2 saturation, 3 hue)."""

    sigmas_px: tuple[float, float]
    turn_rad: float
    down: float
    noise: float
    noise_seed: int
    jpeg: int
    shift: tuple[float, float, float] | None
    grey: bool
    jitter: tuple[float, float, float, float] | None
    jitter_order: tuple[int, int, int, int]
    rounded: bool


def draw(ranges: Degradation, rng: np.random.Generator) -> DegradationParams:
    """Draw every parameter, always in the same order."""
    one, two = rng.uniform(*ranges.sigma_px, 2)
    turn, is_round = rng.uniform(-np.pi, np.pi), rng.uniform() < 0.5
    down, noise = rng.uniform(*ranges.down), rng.uniform(*ranges.noise)
    jpeg, noise_seed = (
        int(rng.integers(ranges.jpeg[0], ranges.jpeg[1] + 1)),
        int(rng.integers(2**62)),
    )
    shifts, is_shifted = rng.uniform(-SHIFT, SHIFT, 3), rng.uniform() < ranges.p_shift
    grey, jitters = bool(rng.uniform() < ranges.p_grey), rng.uniform() < ranges.p_jitter
    brightness, contrast = rng.uniform(0.5, 1.5, 2)
    saturation, hue = rng.uniform(0, 1.5), rng.uniform(-0.1, 0.1)
    a, b, c, d = (int(index) for index in rng.permutation(4))
    return DegradationParams(
        sigmas_px=(float(one), float(one if is_round else two)),
        turn_rad=0.0 if is_round else float(turn),
        down=float(down),
        noise=float(noise),
        noise_seed=noise_seed,
        jpeg=jpeg,
        shift=(float(shifts[0]), float(shifts[1]), float(shifts[2])) if is_shifted else None,
        grey=grey,
        jitter=(float(brightness), float(contrast), float(saturation), float(hue))
        if jitters
        else None,
        jitter_order=(a, b, c, d),
        rounded=ranges.rounded,
    )


def degrade(picture: np.ndarray, drawn: DegradationParams) -> np.ndarray:
    """A degraded picture, (H, W, 3) float32 in [0, 1], of one (H, W, 3) uint8."""
    import cv2

    height, width = picture.shape[:2]
    image = np.multiply(picture, 1 / 255, dtype=np.float32)
    small = max(int(width // drawn.down), 1), max(int(height // drawn.down), 1)
    image = blur_and_resize(image, gaussian_kernel(drawn.sigmas_px, drawn.turn_rad), *small)
    noise = np.random.default_rng(drawn.noise_seed).standard_normal(image.shape, np.float32)
    noise *= drawn.noise / 255
    image = _jpeg(np.clip(image + noise, 0, 1), drawn.jpeg)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if drawn.shift:
        image += np.array(drawn.shift, np.float32)
        np.clip(image, 0, 1, out=image)
    if drawn.grey:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if drawn.jitter:
        image = _jittered(image, drawn.jitter, drawn.jitter_order)
    image = np.clip(image, 0, 1, out=image)
    if drawn.rounded:
        image *= 255
        np.rint(image, out=image)
        image /= 255
    return image


def at_size(image: np.ndarray, side_px: int) -> np.ndarray:
    """A degraded (H, H, 3) float32 picture at another side: averaged down, or bilinear up."""
    import cv2

    if len(image) == side_px:
        return image
    how = cv2.INTER_AREA if side_px < len(image) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side_px, side_px), interpolation=how))


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encoded and decoded."""
    import cv2

    bgr = np.rint(image[..., ::-1] * 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(decoded[..., ::-1]).astype(np.float32) / 255


def _jittered(
    image: np.ndarray, amounts: tuple[float, float, float, float], order: tuple[int, ...]
) -> np.ndarray:
    """Brightness, contrast, saturation and hue changed, in the order given. The picture given is overwritten."""
    import cv2

    brightness, contrast, saturation, hue = amounts
    for operation in order:
        if operation == 0:
            image *= brightness
        elif operation == 1:
            mean = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()
            image *= contrast
            image += (1 - contrast) * mean
        elif operation == 2:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            grey *= 1 - saturation
            image *= saturation
            image += grey[..., None]
        else:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[..., 0] += hue * 360 + (360 if hue < 0 else 0)
            hsv[..., 0][hsv[..., 0] >= 360] -= 360
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        np.clip(image, 0, 1, out=image)
    return image
