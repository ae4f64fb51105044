"""Light, from the shading of cheeks and skin, and from the brightness of the whole crop.

- key light: the logarithm of the right cheek's median brightness over the left's: beyond .26 (1.3 times) from that side;
  even within .13, if there is little shading at all (the 97th percentile of the skin's brightness below e^.6 times its 10th).
  Cheeks are patches between eye, nose and corner of the mouth. Not measured beyond 25 degrees of yaw.
- hard or soft: the steepest shading of the skin (95th percentile of the gradient of the brightness, blurred by 4 px, over the
  brightness; percent a pixel): above 6 hard; below 3.6 soft, if less than 1 % of the skin shines.
- low-key, high-key: the crop's median brightness below 60, above 175. Contrast: from the 5th to the 95th percentile of the
  face's brightness: above 175 high, below 75 low.

Hair over a cheek and painted faces count as shading; a flash from beside the lens is soft by this measure.
"""

from __future__ import annotations

import numpy as np

from authface_data.captions.measured.measurement import FaceCrop, Measurement, above, below, with_doubt
from authface_data.faces.landmarks import LEFT_EYE, RIGHT_EYE
from authface_data.quality.face_scale import FACE_SCALE_PX

SIDE, EVEN, WIDTH, MOST_YAW, LITTLE_SHADING = 0.26, 0.13, 0.03, 25.0, 0.6
HARD, SOFT, STEEP_WIDTH, SHINES, MOST_SHINING = 6.0, 3.6, 0.3, 235, 0.01
LOW_KEY, HIGH_KEY, KEY_WIDTH = 60.0, 175.0, 6.0
HIGH_CONTRAST, LOW_CONTRAST, CONTRAST_WIDTH = 175.0, 75.0, 8.0
CHEEK = 0.11  # half side of a patch, of the distance between the eyes


def measure(face: FaceCrop) -> list[Measurement]:
    skin = skin_mask(face)
    return [*_direction(face, skin), *_hardness(face, skin), *_key(face)]


def skin_mask(face: FaceCrop) -> np.ndarray:
    """(512, 512) bool: the face's outline without eyes, brows and mouth; nothing where the landmarks are five."""
    import cv2

    outline, holes = (np.zeros(face.brightness.shape, np.uint8) for _ in range(2))
    if len(face.points) == 68:
        jaw = 0.9 * face.points[:17] + 0.1 * face.points[30]
        cv2.fillConvexPoly(
            outline,
            cv2.convexHull(np.rint(np.vstack([jaw, face.points[17:27]])).astype(np.int32)),
            1,
        )
        for part in (LEFT_EYE, RIGHT_EYE, slice(48, 60), slice(17, 22), slice(22, 27)):
            cv2.fillConvexPoly(
                holes, cv2.convexHull(np.rint(face.points[part]).astype(np.int32)), 1
            )
        holes = cv2.dilate(holes, np.ones((max(int(0.12 * face.eye_distance), 1),) * 2, np.uint8))
    return cv2.erode(outline * (1 - holes), np.ones((9, 9), np.uint8)) > 0


def _direction(face: FaceCrop, skin: np.ndarray) -> list[Measurement]:
    if abs(face.row["yaw_deg"]) > MOST_YAW or not skin.any():
        return []
    left_eye, right_eye, nose, left_mouth, right_mouth = face.five
    cheeks = []
    for eye, mouth in ((left_eye, left_mouth), (right_eye, right_mouth)):
        across = 0.55 * eye[0] + 0.25 * mouth[0] + 0.2 * nose[0]
        down = 0.5 * nose[1] + 0.25 * (eye[1] + mouth[1])
        cheeks.append(face.around(np.array([across, down]), np.full(2, CHEEK * face.eye_distance)))
    if not all(cheek.size for cheek in cheeks):
        return []
    left, right = (float(np.median(cheek)) for cheek in cheeks)
    ratio = float(np.log((right + 1) / (left + 1)))
    little = below("light", "even light", _shading(face, skin), LITTLE_SHADING, WIDTH).confidence
    return [
        below("light", "key light left", ratio, -SIDE, WIDTH),
        above("light", "key light right", ratio, SIDE, WIDTH),
        with_doubt(below("light", "even light", abs(ratio), EVEN, WIDTH), little),
    ]


def _shading(face: FaceCrop, skin: np.ndarray) -> float:
    low, high = np.percentile(_smoothed(face)[skin], (10, 97))
    return float(np.log((high + 1) / (low + 1)))


def _hardness(face: FaceCrop, skin: np.ndarray) -> list[Measurement]:
    import cv2

    if not skin.any():
        return []
    smooth = _smoothed(face)
    gradient = np.hypot(*(cv2.Sobel(smooth, cv2.CV_32F, 1 - axis, axis) / 8 for axis in (0, 1)))
    steep = 100 * float(np.percentile((gradient / (smooth + 15))[skin], 95))
    dull = below(
        "light",
        "soft light",
        float((face.brightness[skin] > SHINES).mean()),
        MOST_SHINING,
        MOST_SHINING / 4,
    ).confidence
    return [
        above("light", "hard light", steep, HARD, STEEP_WIDTH),
        with_doubt(below("light", "soft light", steep, SOFT, STEEP_WIDTH), dull),
    ]


def _smoothed(face: FaceCrop) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(face.brightness, (0, 0), 4)


def _key(face: FaceCrop) -> list[Measurement]:
    y, x = (np.mgrid[:FACE_SCALE_PX, :FACE_SCALE_PX] + 0.5) / FACE_SCALE_PX
    oval = (x - 0.5) ** 2 / 0.05 + (y - 0.55) ** 2 / 0.07 < 1
    level = float(np.median(face.brightness))
    contrast = float(np.ptp(np.percentile(face.brightness[oval], (5, 95))))
    return [
        below("light", "low-key", level, LOW_KEY, KEY_WIDTH),
        above("light", "high-key", level, HIGH_KEY, KEY_WIDTH),
        above("light", "high contrast", contrast, HIGH_CONTRAST, CONTRAST_WIDTH),
        below("light", "low contrast", contrast, LOW_CONTRAST, CONTRAST_WIDTH),
    ]
