"""Light tags, from the shading of the skin and from the brightness of the crop.

They need the 68 landmarks that bound the skin; five landmarks give no light tags.

- Key light: the logarithm of the ratio of the right side's brightness to the left side's, for
  mirrored areas of cheek, jaw and nose. If cheek and jaw are both beyond 0.3 (a ratio of 1.35) on
  the same side, and the mean of the three is beyond 0.35, the key light comes from there: hair and
  beards darken cheek and jaw, but not the nose. If all three are within 0.15, the light is even,
  provided that the skin has little shading: the 97th percentile of its brightness is below e^0.55
  times the 10th percentile. The direction is not measured beyond 25 degrees of yaw.
- Soft light: the steepest shading of the skin, as the 95th percentile of the gradient of the
  brightness (blurred by 4 px) relative to the brightness, is below 3.3 percent per pixel. The skin
  has little shading (e^0.6), and less than 1 % of it shines.
- Low-key: the median brightness of the face is below 80 and that of the crop below 90, and the
  bright parts of the skin are dark, too (below 150), so that a dark skin alone does not suffice.
  High-key: the median of the face is above 200 and that of the crop above 175, and the skin has
  little shading. A bright or dark background alone does not suffice.

Hair over both cheek and jaw of one side counts as shading. A flash beside the lens counts as soft
light. There are no tags of hard light or contrast: beards, dark skin and teeth have as much contrast
as light has, and on labelled faces fewer than half of such tags were right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from authface_data.captions.measured.measurement import (
    FaceCrop,
    Measurement,
    face_oval,
    gradient_magnitude,
)
from authface_data.faces.landmarks import LEFT_EYE, RIGHT_EYE

MIN_SIDE_LOG_RATIO = 0.3
MIN_MEAN_LOG_RATIO = 0.35
MAX_EVEN_LOG_RATIO = 0.15
MAX_EVEN_SHADING = 0.55
LOG_RATIO_WIDTH = 0.03
MAX_YAW_DEG = 25.0
MIN_AREA_PX = 150
BLACK_LEVEL = 8.0
"""Added to the brightness before a logarithm, so that the noise of dark skin does not count."""

MAX_SOFT_STEEPNESS = 3.3
STEEPNESS_WIDTH = 0.3
MAX_SOFT_SHADING = 0.6
SHINE_LEVEL = 235
MAX_SHINE_SHARE = 0.01
SMOOTH_SIGMA_PX = 4

MAX_LOW_KEY_FACE = 80.0
MAX_LOW_KEY = 90.0
MAX_LOW_KEY_SKIN = 150.0
MIN_HIGH_KEY_FACE = 200.0
MIN_HIGH_KEY = 175.0
KEY_WIDTH = 6.0

# Slices of dlib's 68 landmarks that bound areas without skin.
OUTER_LIPS = slice(48, 60)
LEFT_BROW = slice(17, 22)
RIGHT_BROW = slice(22, 27)


@dataclass(frozen=True)
class SkinArea:
    """An area beside the axis of the face, which has a mirror image on the other side.

    Attributes:
        across: Least and greatest distance from the axis, in distances between the eyes.
        along: Least and greatest distance below the eyes, in distances from eyes to mouth.
    """

    across: tuple[float, float]
    along: tuple[float, float]

    def contains(self, across: np.ndarray, along: np.ndarray) -> np.ndarray:
        """Whether pixels are in the area, on either side of the face.

        Args:
            across: Distance from the axis of the face, in distances between the eyes.
            along: Distance below the eyes, in distances from eyes to mouth; the same shape.

        Returns:
            bool array of the same shape.
        """
        distance = np.abs(across)
        is_beside = (distance > self.across[0]) & (distance < self.across[1])
        return is_beside & (along > self.along[0]) & (along < self.along[1])


CHEEK = SkinArea(across=(0.3, 0.75), along=(0.3, 0.75))
JAW = SkinArea(across=(0.3, 0.7), along=(0.75, 1.25))
NOSE = SkinArea(across=(0.05, 0.2), along=(0.15, 0.6))


def measure_light(face: FaceCrop) -> list[Measurement]:
    """Measure direction, softness and key of the light."""
    skin = skin_mask(face)
    if not skin.any():
        return []
    smooth = _smooth(face)
    shading = _shading(smooth, skin)
    return [
        *_measure_direction(face, skin, smooth, shading),
        _measure_softness(face, skin, smooth, shading),
        *_measure_key(face, skin, smooth, shading),
    ]


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


def _smooth(face: FaceCrop) -> np.ndarray:
    """Return the (512, 512) brightness after a Gaussian blur."""
    import cv2

    return cv2.GaussianBlur(face.brightness, (0, 0), SMOOTH_SIGMA_PX)


def _shading(smooth: np.ndarray, skin: np.ndarray) -> float:
    """Return the logarithm of the ratio of the skin's bright parts to its dark parts."""
    low, high = np.percentile(smooth[skin], (10, 97))
    return float(np.log((high + 1) / (low + 1)))


def _measure_direction(
    face: FaceCrop, skin: np.ndarray, smooth: np.ndarray, shading: float
) -> list[Measurement]:
    if abs(face.row["yaw_deg"]) > MAX_YAW_DEG:
        return []
    across, along = _face_coordinates(face)
    cheek, jaw, nose = (
        _side_log_ratio(smooth, skin & area.contains(across, along), across)
        for area in (CHEEK, JAW, NOSE)
    )
    if cheek is None or jaw is None or nose is None:
        return []

    even = Measurement.below(
        "light",
        "even light",
        max(abs(cheek), abs(jaw), abs(nose)),
        bound=MAX_EVEN_LOG_RATIO,
        width=LOG_RATIO_WIDTH,
    )
    little_shading = Measurement.below(
        "light", "even light", shading, bound=MAX_EVEN_SHADING, width=LOG_RATIO_WIDTH
    )
    mean = (cheek + jaw + nose) / 3
    return [
        _key_light("key light left", -mean, min(-cheek, -jaw)),
        _key_light("key light right", mean, min(cheek, jaw)),
        even.capped(little_shading.confidence),
    ]


def _key_light(tag: str, mean: float, least: float) -> Measurement:
    """Measure the light of one side by the mean of all areas and the least of cheek and jaw."""
    side = Measurement.above("light", tag, mean, bound=MIN_MEAN_LOG_RATIO, width=LOG_RATIO_WIDTH)
    both = Measurement.above("light", tag, least, bound=MIN_SIDE_LOG_RATIO, width=LOG_RATIO_WIDTH)
    return side.capped(both.confidence)


def _face_coordinates(face: FaceCrop) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of every pixel that `SkinArea` uses; `across` is negative at left."""
    left_eye, right_eye, _, left_mouth, right_mouth = face.landmarks5
    eyes = (left_eye + right_eye) / 2
    right = (right_eye - left_eye) / face.eye_distance_px**2
    down = (left_mouth + right_mouth) / 2 - eyes
    down = down / max(float(down @ down), 1.0)
    y, x = np.mgrid[: len(face.brightness), : len(face.brightness)]
    across = (x - eyes[0]) * right[0] + (y - eyes[1]) * right[1]
    along = (x - eyes[0]) * down[0] + (y - eyes[1]) * down[1]
    return across, along


def _side_log_ratio(smooth: np.ndarray, area: np.ndarray, across: np.ndarray) -> float | None:
    """Return the logarithm of the ratio of an area's right side to its left side.

    It is None if one side has too little skin.
    """
    levels = []
    for side in (area & (across < 0), area & (across > 0)):
        if side.sum() < MIN_AREA_PX:
            return None
        levels.append(float(np.median(smooth[side])) + BLACK_LEVEL)
    return float(np.log(levels[1] / levels[0]))


def _measure_softness(
    face: FaceCrop, skin: np.ndarray, smooth: np.ndarray, shading: float
) -> Measurement:
    relative_gradient = gradient_magnitude(smooth) / (smooth + 15)
    steepness = 100 * float(np.percentile(relative_gradient[skin], 95))
    shine_share = float((face.brightness[skin] > SHINE_LEVEL).mean())
    soft = Measurement.below(
        "light", "soft light", steepness, bound=MAX_SOFT_STEEPNESS, width=STEEPNESS_WIDTH
    )
    little_shading = Measurement.below(
        "light", "soft light", shading, bound=MAX_SOFT_SHADING, width=LOG_RATIO_WIDTH
    )
    no_shine = Measurement.below(
        "light", "soft light", shine_share, bound=MAX_SHINE_SHARE, width=MAX_SHINE_SHARE / 4
    )
    return soft.capped(min(little_shading.confidence, no_shine.confidence))


def _measure_key(
    face: FaceCrop, skin: np.ndarray, smooth: np.ndarray, shading: float
) -> list[Measurement]:
    crop_level = float(np.median(face.brightness))
    face_level = float(np.median(face.brightness[face_oval()]))
    bright_skin = float(np.percentile(smooth[skin], 97))

    low_key = Measurement.below(
        "light", "low-key", face_level, bound=MAX_LOW_KEY_FACE, width=KEY_WIDTH
    )
    dark_crop = Measurement.below(
        "light", "low-key", crop_level, bound=MAX_LOW_KEY, width=KEY_WIDTH
    )
    dark_skin = Measurement.below(
        "light", "low-key", bright_skin, bound=MAX_LOW_KEY_SKIN, width=KEY_WIDTH
    )
    high_key = Measurement.above(
        "light", "high-key", face_level, bound=MIN_HIGH_KEY_FACE, width=KEY_WIDTH
    )
    bright_crop = Measurement.above(
        "light", "high-key", crop_level, bound=MIN_HIGH_KEY, width=KEY_WIDTH
    )
    little_shading = Measurement.below(
        "light", "high-key", shading, bound=MAX_SOFT_SHADING, width=LOG_RATIO_WIDTH
    )
    return [
        low_key.capped(min(dark_crop.confidence, dark_skin.confidence)),
        high_key.capped(min(bright_crop.confidence, little_shading.confidence)),
    ]
