"""Light tags, from the shading of cheeks and skin and from the brightness of the crop.

- Key light: the logarithm of the ratio of the right cheek's median brightness to the left cheek's.
  Beyond ±0.26 (a ratio of 1.3) the key light comes from that side. Within ±0.13 the light is even,
  provided that the skin has little shading: the 97th percentile of its brightness is below e^0.6
  times the 10th percentile. Each cheek is a patch between eye, nose and corner of the mouth. The
  direction is not measured beyond 25 degrees of yaw.
- Hard or soft light: the steepest shading of the skin, as the 95th percentile of the gradient of
  the brightness (blurred by 4 px) relative to the brightness, in percent per pixel. Above 6 the
  light is hard. Below 3.6 it is soft, provided that less than 1 % of the skin shines.
- Low-key: the median brightness of the face is below 80 and that of the crop below 90. High-key:
  that of the face is above 197 and that of the crop above 175. A bright or dark background alone
  does not suffice.
- Contrast: the distance from the 5th to the 95th percentile of the face's brightness is above 175
  (high) or below 75 (low).

Hair over a cheek and face paint count as shading. A flash beside the lens counts as soft light.
"""

from __future__ import annotations

import numpy as np

from authface_data.captions.measured.measurement import (
    FaceCrop,
    Measurement,
    gradient_magnitude,
)
from authface_data.faces.landmarks import LEFT_EYE, RIGHT_EYE
from authface_data.quality.face_scale import FACE_SCALE_PX

MIN_SIDE_LOG_RATIO = 0.26
MAX_EVEN_LOG_RATIO = 0.13
MAX_EVEN_SHADING = 0.6
LOG_RATIO_WIDTH = 0.03
MAX_YAW_DEG = 25.0
CHEEK_HALF_SIDE = 0.11
"""Half side of the patch on a cheek, in distances between the eyes."""

MIN_HARD_STEEPNESS = 6.0
MAX_SOFT_STEEPNESS = 3.6
STEEPNESS_WIDTH = 0.3
SHINE_LEVEL = 235
MAX_SHINE_SHARE = 0.01
SMOOTH_SIGMA_PX = 4

MAX_LOW_KEY_FACE = 80.0
MAX_LOW_KEY = 90.0
MIN_HIGH_KEY_FACE = 197.0
MIN_HIGH_KEY = 175.0
KEY_WIDTH = 6.0
MIN_HIGH_CONTRAST = 175.0
MAX_LOW_CONTRAST = 75.0
CONTRAST_WIDTH = 8.0

# Slices of dlib's 68 landmarks that bound areas without skin.
OUTER_LIPS = slice(48, 60)
LEFT_BROW = slice(17, 22)
RIGHT_BROW = slice(22, 27)


def measure_light(face: FaceCrop) -> list[Measurement]:
    """Measure direction, hardness, key and contrast of the light."""
    skin = skin_mask(face)
    return [*_measure_direction(face, skin), *_measure_hardness(face, skin), *_measure_key(face)]


def skin_mask(face: FaceCrop) -> np.ndarray:
    """Mark the skin of a face: its outline without eyes, brows and mouth.

    Args:
        face: The crop.

    Returns:
        (512, 512) bool; all False if the face has only five landmarks.
    """
    import cv2

    outline = np.zeros(face.brightness.shape, np.uint8)
    holes = np.zeros(face.brightness.shape, np.uint8)
    points = face.landmarks
    if len(points) == 68:
        # The jaw line moves a tenth of the way towards the nose, away from background and hair.
        jaw = 0.9 * points[:17] + 0.1 * points[30]
        _fill_hull(outline, np.vstack([jaw, points[17:27]]))
        for part in (LEFT_EYE, RIGHT_EYE, OUTER_LIPS, LEFT_BROW, RIGHT_BROW):
            _fill_hull(holes, points[part])
        margin = max(int(0.12 * face.eye_distance_px), 1)
        holes = cv2.dilate(holes, np.ones((margin, margin), np.uint8))
    return cv2.erode(outline * (1 - holes), np.ones((9, 9), np.uint8)) > 0


def _fill_hull(mask: np.ndarray, points: np.ndarray) -> None:
    """Set the convex hull of points to 1 in a uint8 mask, in place."""
    import cv2

    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points).astype(np.int32)), 1)


def _measure_direction(face: FaceCrop, skin: np.ndarray) -> list[Measurement]:
    if abs(face.row["yaw_deg"]) > MAX_YAW_DEG or not skin.any():
        return []
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks5
    left_cheek = _cheek_patch(face, left_eye, nose, left_mouth)
    right_cheek = _cheek_patch(face, right_eye, nose, right_mouth)
    if not left_cheek.size or not right_cheek.size:
        return []

    left = float(np.median(left_cheek))
    right = float(np.median(right_cheek))
    log_ratio = float(np.log((right + 1) / (left + 1)))
    even = Measurement.below(
        "light", "even light", abs(log_ratio), bound=MAX_EVEN_LOG_RATIO, width=LOG_RATIO_WIDTH
    )
    little_shading = Measurement.below(
        "light",
        "even light",
        _shading(face, skin),
        bound=MAX_EVEN_SHADING,
        width=LOG_RATIO_WIDTH,
    )
    return [
        Measurement.below(
            "light", "key light left", log_ratio, bound=-MIN_SIDE_LOG_RATIO, width=LOG_RATIO_WIDTH
        ),
        Measurement.above(
            "light", "key light right", log_ratio, bound=MIN_SIDE_LOG_RATIO, width=LOG_RATIO_WIDTH
        ),
        even.capped(little_shading.confidence),
    ]


def _cheek_patch(
    face: FaceCrop, eye: np.ndarray, nose: np.ndarray, mouth_corner: np.ndarray
) -> np.ndarray:
    """Return the brightness of a cheek between eye, nose and corner of the mouth."""
    x = 0.55 * eye[0] + 0.25 * mouth_corner[0] + 0.2 * nose[0]
    y = 0.5 * nose[1] + 0.25 * (eye[1] + mouth_corner[1])
    half_size = np.full(2, CHEEK_HALF_SIDE * face.eye_distance_px)
    return face.brightness_patch(np.array([x, y]), half_size)


def _shading(face: FaceCrop, skin: np.ndarray) -> float:
    """Return the logarithm of the ratio of the skin's bright parts to its dark parts."""
    low, high = np.percentile(_smooth(face)[skin], (10, 97))
    return float(np.log((high + 1) / (low + 1)))


def _measure_hardness(face: FaceCrop, skin: np.ndarray) -> list[Measurement]:
    if not skin.any():
        return []
    smooth = _smooth(face)
    relative_gradient = gradient_magnitude(smooth) / (smooth + 15)
    steepness = 100 * float(np.percentile(relative_gradient[skin], 95))
    shine_share = float((face.brightness[skin] > SHINE_LEVEL).mean())

    soft = Measurement.below(
        "light", "soft light", steepness, bound=MAX_SOFT_STEEPNESS, width=STEEPNESS_WIDTH
    )
    no_shine = Measurement.below(
        "light", "soft light", shine_share, bound=MAX_SHINE_SHARE, width=MAX_SHINE_SHARE / 4
    )
    return [
        Measurement.above(
            "light", "hard light", steepness, bound=MIN_HARD_STEEPNESS, width=STEEPNESS_WIDTH
        ),
        soft.capped(no_shine.confidence),
    ]


def _smooth(face: FaceCrop) -> np.ndarray:
    """Return the (512, 512) brightness after a Gaussian blur."""
    import cv2

    return cv2.GaussianBlur(face.brightness, (0, 0), SMOOTH_SIGMA_PX)


def _measure_key(face: FaceCrop) -> list[Measurement]:
    y, x = (np.mgrid[:FACE_SCALE_PX, :FACE_SCALE_PX] + 0.5) / FACE_SCALE_PX
    oval = (x - 0.5) ** 2 / 0.05 + (y - 0.55) ** 2 / 0.07 < 1
    crop_level = float(np.median(face.brightness))
    face_level = float(np.median(face.brightness[oval]))
    contrast = float(np.ptp(np.percentile(face.brightness[oval], (5, 95))))
    low_key = Measurement.below(
        "light", "low-key", face_level, bound=MAX_LOW_KEY_FACE, width=KEY_WIDTH
    )
    dark_crop = Measurement.below(
        "light", "low-key", crop_level, bound=MAX_LOW_KEY, width=KEY_WIDTH
    )
    high_key = Measurement.above(
        "light", "high-key", face_level, bound=MIN_HIGH_KEY_FACE, width=KEY_WIDTH
    )
    bright_crop = Measurement.above(
        "light", "high-key", crop_level, bound=MIN_HIGH_KEY, width=KEY_WIDTH
    )
    return [
        low_key.capped(dark_crop.confidence),
        high_key.capped(bright_crop.confidence),
        Measurement.above(
            "light", "high contrast", contrast, bound=MIN_HIGH_CONTRAST, width=CONTRAST_WIDTH
        ),
        Measurement.below(
            "light", "low contrast", contrast, bound=MAX_LOW_CONTRAST, width=CONTRAST_WIDTH
        ),
    ]
