"""Focus tags: sharpness of the eyes, and of the background relative to the eyes.

- Eyes: a box filter of nine pixels removes a share of the differences between neighbouring pixels
  in a patch around the eye (as in quality/sharpness.py, without the diagonals). If the share is
  above 0.40 for both eyes, the eyes are sharp; if it is below 0.235 for both, the focus is soft.
- Background: the pixels outside the person, hair and clothes included. The blur of an edge follows
  from its gradients under Gaussians of 1 and 4 px: a step blurred by s has the ratio
  r = sqrt((s² + 16) / (s² + 1)), so s = sqrt((16 - r²) / (r² - 1)). The median blur of the
  strongest 5 % of the edges counts. The background is blurred if this is above 2.7 px and above 1.3
  times the blur of the eyes, provided that there are slopes at all (1 level per pixel). It is sharp
  if this is below 0.75 px and the edges are strong (4 levels per pixel). Otherwise, and if less
  than 4 % of the crop is background, it gives no measurement.

Strong noise counts as sharpness.
"""

from __future__ import annotations

import numpy as np

from authface_data.captions.measured.measurement import (
    FaceCrop,
    Measurement,
    gradient_magnitude,
)
from authface_data.quality.face_scale import FACE_SCALE_PX
from authface_data.quality.sharpness import blur_loss

MIN_SHARP_EYES = 0.40
MAX_SOFT_EYES = 0.235
EYES_WIDTH = 0.012
EYE_PATCH_HALF_SIZE = np.array([0.42, 0.23])
"""Half width and half height of the patch around an eye, in distances between the eyes."""
DENOISE_SIGMA_PX = 0.8

MIN_BACKGROUND_SHARE = 0.04
MIN_BLURRED_PX = 2.7
MAX_SHARP_PX = 0.75
BLUR_WIDTH_PX = 0.12
MIN_BLUR_RATIO = 1.3
BLUR_RATIO_WIDTH = 0.06

MIN_SLOPE = 1.0
MIN_EDGE_GRADIENT = 4.0
EDGE_PERCENTILE = 95
FINE_SIGMA_PX = 1.0
COARSE_SIGMA_PX = 4.0


def measure_focus(face: FaceCrop) -> list[Measurement]:
    """Measure the sharpness of eyes and background."""
    return [*_measure_eyes(face), *_measure_background(face)]


def _measure_eyes(face: FaceCrop) -> list[Measurement]:
    import cv2

    if not face.both_eyes_visible:
        return []
    half_size = face.eye_distance_px * EYE_PATCH_HALF_SIZE
    shares = []
    for eye in face.landmarks5[:2]:
        patch = cv2.GaussianBlur(face.brightness_patch(eye, half_size), (0, 0), DENOISE_SIGMA_PX)
        shares.append(min(blur_loss(patch, 0), blur_loss(patch, 1)))
    return [
        Measurement.above(
            "focus", "sharp eyes", min(shares), bound=MIN_SHARP_EYES, width=EYES_WIDTH
        ),
        Measurement.below(
            "focus", "soft focus", max(shares), bound=MAX_SOFT_EYES, width=EYES_WIDTH
        ),
    ]


def _measure_background(face: FaceCrop) -> list[Measurement]:
    if face.background is None or face.background.mean() < MIN_BACKGROUND_SHARE:
        return []
    y, x = (np.mgrid[:FACE_SCALE_PX, :FACE_SCALE_PX] + 0.5) / FACE_SCALE_PX
    eye_region = (np.abs(x - 0.5) < 0.2) & (np.abs(y - 0.47) < 0.07)
    background = edge_blur_px(face.brightness, face.background, MIN_SLOPE)
    eyes = edge_blur_px(face.brightness, eye_region, MIN_EDGE_GRADIENT)
    edges = edge_blur_px(face.brightness, face.background, MIN_EDGE_GRADIENT)

    measurements = []
    if background is not None and eyes is not None:
        blurred = Measurement.above(
            "focus", "blurred background", background, bound=MIN_BLURRED_PX, width=BLUR_WIDTH_PX
        )
        blurrier_than_eyes = Measurement.above(
            "focus",
            "blurred background",
            background / eyes,
            bound=MIN_BLUR_RATIO,
            width=BLUR_RATIO_WIDTH,
        )
        measurements.append(blurred.capped(blurrier_than_eyes.confidence))
    if edges is not None:
        sharp = Measurement.below(
            "focus", "sharp background", edges, bound=MAX_SHARP_PX, width=BLUR_WIDTH_PX
        )
        measurements.append(sharp)
    return measurements


def edge_blur_px(brightness: np.ndarray, region: np.ndarray, min_gradient: float) -> float | None:
    """Measure the blur of the strongest edges in a region.

    Args:
        brightness: (height, width) float32, 0 to 255.
        region: (height, width) bool; the pixels to consider.
        min_gradient: Weakest edge that counts, in levels per px after a Gaussian blur of 4 px.

    Returns:
        The standard deviation of the equivalent Gaussian blur in px; None without edges.
    """
    import cv2

    fine = _gradient(brightness, FINE_SIGMA_PX)
    coarse = _gradient(brightness, COARSE_SIGMA_PX)
    threshold = float(np.percentile(coarse[region], EDGE_PERCENTILE))
    if threshold < min_gradient:
        return None

    edges = region & (coarse >= threshold)
    # The fine gradient is narrow, so an edge pixel of the coarse gradient may miss its peak.
    fine_peak = cv2.dilate(fine, np.ones((7, 7), np.uint8))
    ratio = float(np.median(fine_peak[edges] / coarse[edges]))
    ratio = min(max(ratio, 1.001), COARSE_SIGMA_PX / FINE_SIGMA_PX - 0.001)
    return float(np.sqrt((COARSE_SIGMA_PX**2 - ratio**2) / (ratio**2 - FINE_SIGMA_PX**2)))


def _gradient(brightness: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return the magnitude of the gradient after a Gaussian blur, in levels per px."""
    import cv2

    return gradient_magnitude(cv2.GaussianBlur(brightness, (0, 0), sigma_px))
