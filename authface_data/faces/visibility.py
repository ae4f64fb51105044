"""Whether the eyes and the mouth of a crop can be seen, or are hidden: profile, sunglasses, a hand, a mask, the photo's edge.

A region is visible if all of this holds:
- its box lies within the crop and, where the crop comes from, wholly on the photograph;
- the head is not turned so far that the region is on its far side (FAR_EYE_YAW_DEG, MOUTH_YAW_DEG);
- it has in it what an eye or a mouth has. An eye, open or closed, has something dark in something light: the darkest 5 % of
  the patch around it are at most .7 of its median brightness. Lenses are dark all over, skin is light all over. A mouth has
  dark (the darkest 3 % at most .74 of the median), or at least contrast between lips and skin (the range of the brightness
  between Gaussians of .008 and .03 of the crop is .32 of the cheeks' brightness).

Error (tests/authface_data/faces/test_visibility.py): 6 of 138 regions of the 46 faces of 24 public photographs, labelled by
looking; 4 of the 6 on two out-of-focus faces of 87 and 142 px. Of the same faces under painted sunglasses, hands and masks,
none of 160 eyes and 80 mouths is taken for visible. The numbers above were chosen on these faces: expect more errors on others.

Fails on: hair over an eye (strands are dark in light: visible), clear or mirrored glasses with a reflection right over the
eye, a hand with dark gaps between its fingers, eyes lost in black shadow or out of focus (hidden).
"""

from __future__ import annotations

import numpy as np

from authface_data.faces.align import Quad
from authface_data.quality.luma import luma

# Beyond this yaw the far eye and the far half of the mouth are seen edge on or not at all.
FAR_EYE_YAW_DEG, MOUTH_YAW_DEG = 50.0, 75.0
# In parts of the crop's side: half width and half height of what is looked at, and of a patch of cheek.
EYE_HALF, MOUTH_HALF, CHEEK_HALF = (0.075, 0.0375), (0.09, 0.054), 0.03
DARK_OF_EYE, DARK_OF_MOUTH, CONTRAST_OF_MOUTH = 0.70, 0.74, 0.32


def visible(
    crop: np.ndarray,
    boxes: dict[str, np.ndarray],
    quad: Quad,
    photo_px: tuple[int, int],
    yaw_deg: float,
) -> dict[str, bool]:
    """left_eye, right_eye and mouth (as seen in the image): whether each can be seen.

    crop: (H, H, 3) uint8; boxes: their boxes in it, pixel edges; quad: where the crop lay in a photograph of (width, height).
    """
    brightness = luma(crop)
    # Looking to the right of the image hides the right eye first.
    turned = {
        "left_eye": yaw_deg < -FAR_EYE_YAW_DEG,
        "right_eye": yaw_deg > FAR_EYE_YAW_DEG,
        "mouth": abs(yaw_deg) > MOUTH_YAW_DEG,
    }
    looks = {
        "left_eye": _has_eye(brightness, boxes["left_eye"]),
        "right_eye": _has_eye(brightness, boxes["right_eye"]),
        "mouth": _has_mouth(brightness, boxes),
    }
    return {
        name: bool(looks[name] and not turned[name] and _on_both(box, len(crop), quad, photo_px))
        for name, box in boxes.items()
    }


def _on_both(box: np.ndarray, size: int, quad: Quad, photo_px: tuple[int, int]) -> bool:
    """Whether a box of the crop lies within it, and on the photograph."""
    if (box < 0).any() or (box > size).any():
        return False
    north_west, south_west, _, north_east = quad.corners_px + 0.5  # edges
    corners = (
        np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]]) / size
    )
    on_photo = (
        north_west
        + corners[:, :1] * (north_east - north_west)
        + corners[:, 1:] * (south_west - north_west)
    )
    return bool((on_photo >= -0.5).all() and (on_photo <= np.array(photo_px) + 0.5).all())


def _has_eye(brightness: np.ndarray, box: np.ndarray) -> bool:
    patch = _around(brightness, _centre(box), EYE_HALF)
    return patch.size > 0 and float(np.percentile(patch, 5)) <= DARK_OF_EYE * float(
        np.median(patch)
    )


def _has_mouth(brightness: np.ndarray, boxes: dict[str, np.ndarray]) -> bool:
    import cv2

    size, mouth = len(brightness), _centre(boxes["mouth"])
    patch = _around(brightness, mouth, MOUTH_HALF)
    if not patch.size:
        return False
    if float(np.percentile(patch, 3)) <= DARK_OF_MOUTH * float(np.median(patch)):
        return True
    cheeks = []
    for name in ("left_eye", "right_eye"):
        eye = _centre(boxes[name])
        cheeks.append(
            _around(
                brightness,
                np.array([eye[0], 0.45 * eye[1] + 0.55 * mouth[1]]),
                (CHEEK_HALF, CHEEK_HALF),
            ).ravel()
        )
    level = (
        float(np.median(np.concatenate(cheeks)))
        if any(len(cheek) for cheek in cheeks)
        else float(np.median(patch))
    )
    between = cv2.GaussianBlur(brightness, (0, 0), 0.008 * size) - cv2.GaussianBlur(
        brightness, (0, 0), 0.03 * size
    )
    return float(np.ptp(_around(between, mouth, MOUTH_HALF))) >= CONTRAST_OF_MOUTH * (level + 1)


def _centre(box: np.ndarray) -> np.ndarray:
    return (np.asarray(box[:2]) + np.asarray(box[2:])) / 2


def _around(plane: np.ndarray, centre: np.ndarray, half: tuple[float, float]) -> np.ndarray:
    """The part of a plane around a point, in parts of its side, as much of it as there is."""
    size = len(plane)
    reach = np.array(half) * size
    low, high = (
        np.clip(np.rint(centre - reach), 0, size).astype(int),
        np.clip(np.rint(centre + reach), 0, size).astype(int),
    )
    return plane[low[1] : high[1], low[0] : high[0]]
