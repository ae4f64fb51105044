"""Painting occlusions of eyes and mouth onto real crops.

Crops are (size, size, 3) uint8 RGB; boxes are pixel edges left, top, right, bottom in the crop.
"""

from __future__ import annotations

import cv2
import numpy as np


def _blend(crop: np.ndarray, paint: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend paint into a crop where the mask is 1, with a soft edge."""
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5)[..., None]
    return np.clip(crop * (1 - alpha) + paint * alpha, 0, 255).astype(np.uint8)


def _centre(box: np.ndarray) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def paint_sunglasses(
    crop: np.ndarray,
    left_box: np.ndarray,
    right_box: np.ndarray,
    tint: tuple[int, int, int] = (24, 22, 26),
) -> np.ndarray:
    """Paint two dark lenses with a reflection in each, and a bridge.

    Args:
        crop: The crop.
        left_box: Box of the left eye.
        right_box: Box of the right eye.
        tint: RGB of the lenses.

    Returns:
        The painted crop.
    """
    size = len(crop)
    (left_x, left_y), (right_x, right_y) = _centre(left_box), _centre(right_box)
    eye_centres = ((left_x, left_y), (right_x, right_y))
    angle = float(np.degrees(np.arctan2(right_y - left_y, right_x - left_x)))
    eye_distance = float(np.hypot(right_x - left_x, right_y - left_y))
    axes = (round(0.44 * eye_distance), round(0.085 * size))

    mask = np.zeros(crop.shape[:2], np.uint8)
    for x, y in eye_centres:
        cv2.ellipse(mask, (round(x), round(y + 0.01 * size)), axes, angle, 0, 360, 1, -1)
    bridge_start = (round(left_x), round(left_y - 0.02 * size))
    bridge_end = (round(right_x), round(right_y - 0.02 * size))
    cv2.line(mask, bridge_start, bridge_end, 1, max(round(0.015 * size), 1))

    gradient = np.linspace(0, 26, size)[:, None, None]
    paint = np.array(tint, np.float32) + gradient + 0.06 * crop
    for x, y in eye_centres:
        reflection = np.zeros(crop.shape[:2], np.uint8)
        spot = (round(x - 0.04 * size), round(y - 0.03 * size))
        spot_axes = (round(0.03 * size), round(0.012 * size))
        cv2.ellipse(reflection, spot, spot_axes, -25, 0, 360, 1, -1)
        paint = paint + 70 * cv2.GaussianBlur(reflection.astype(np.float32), (0, 0), 3)[..., None]
    return _blend(crop, paint, mask)


def paint_hand(crop: np.ndarray, box: np.ndarray, num_fingers: int = 3) -> np.ndarray:
    """Paint fingers in the face's own colour, side by side over a box.

    Args:
        crop: The crop.
        box: Box of an eye or the mouth.
        num_fingers: Number of fingers; each is rounded by shading and has a fine texture.

    Returns:
        The painted crop.
    """
    size = len(crop)
    x0, y0, x1, y1 = (round(value) for value in box)
    margin = round(0.03 * size)
    x0, y0 = max(x0 - margin, 0), max(y0 - margin, 0)
    x1, y1 = min(x1 + margin, size), min(y1 + margin, size)

    cheek_rows = slice(round(0.58 * size), round(0.64 * size))
    cheek_columns = slice(round(0.3 * size), round(0.7 * size))
    colour = np.median(crop[cheek_rows, cheek_columns].reshape(-1, 3), axis=0)
    roundness = np.abs(np.sin(np.linspace(0, np.pi * num_fingers, y1 - y0)))[:, None, None]
    shade = 0.78 + 0.27 * np.sqrt(roundness)
    noise = np.random.default_rng(3).normal(0, 1, (y1 - y0, x1 - x0, 1)).astype(np.float32)
    texture = 0.02 * cv2.GaussianBlur(noise, (0, 0), 1.2)[..., None]

    paint = crop.astype(np.float32).copy()
    paint[y0:y1, x0:x1] = colour * (shade + texture)
    mask = np.zeros(crop.shape[:2], np.uint8)
    mask[y0:y1, x0:x1] = 1
    return _blend(crop, paint, mask)


def paint_mask(
    crop: np.ndarray, mouth_box: np.ndarray, colour: tuple[int, int, int] = (150, 190, 215)
) -> np.ndarray:
    """Paint a surgical mask with folds, from the nose to the chin.

    Args:
        crop: The crop.
        mouth_box: Box of the mouth.
        colour: RGB of the mask in the light of an average crop.

    Returns:
        The painted crop.
    """
    size = len(crop)
    x, y = _centre(mouth_box)
    outline = np.array(
        [(-0.25, -0.13), (0, -0.17), (0.25, -0.13), (0.22, 0.16), (0, 0.24), (-0.22, 0.16)]
    )
    mask = np.zeros(crop.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(outline * size + (x, y)).astype(np.int32)], 1)

    folds = 1 - 0.08 * (np.sin(np.arange(size) * 2 * np.pi / (0.05 * size)) > 0.6)[:, None, None]
    middle_rows = slice(round(0.5 * size), round(0.6 * size))
    middle_columns = slice(round(0.3 * size), round(0.7 * size))
    light = float(crop[middle_rows, middle_columns].mean()) / 170
    paint = np.array(colour, np.float32) * folds * light + np.zeros_like(crop, np.float32)
    return _blend(crop, paint, mask)


def make_texture(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Generate a picture to print on an occluder.

    Args:
        kind: `plain`, `plaid`, `dots`, `leaves` (blobs of several colours) or `grain`.
        height: Its height in pixels.
        width: Its width in pixels.
        rng: Source of the colours and sizes.

    Returns:
        (height, width, 3) float32 RGB.
    """
    base, second, third = rng.uniform(10, 245, (3, 3)).astype(np.float32)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    period = float(rng.uniform(0.15, 0.4)) * height + 4
    weight = np.zeros((height, width, 1), np.float32)
    extra = np.zeros_like(weight)
    if kind == "plaid":
        weight = ((rows % period < period / 4) | (columns % period < period / 4))[..., None]
        extra = (columns % period < period / 10)[..., None]
    elif kind == "dots":
        distance = np.hypot(rows % period - period / 2, columns % period - period / 2)
        weight = (distance < period / 4)[..., None]
    elif kind in {"leaves", "grain"}:
        sigma = period / 5 if kind == "leaves" else 0.8
        fields = rng.normal(size=(2, height, width)).astype(np.float32)
        smooth = [cv2.GaussianBlur(field, (0, 0), sigma) for field in fields]
        weight = (smooth[0] > 0.4 * smooth[0].std())[..., None]
        extra = (smooth[1] > smooth[1].std())[..., None]
    picture = base + (second - base) * weight
    picture = picture + (third - picture) * extra
    shade = 0.85 + 0.3 * np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    return np.clip(picture * shade, 0, 255).astype(np.float32)


def paint_patch(crop: np.ndarray, box: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Paint an oval object over a box, with a quarter of the box around it.

    Args:
        crop: The crop.
        box: Box of an eye or the mouth.
        texture: (height, width, 3) picture on the object; it is resized.

    Returns:
        The painted crop.
    """
    x, y = _centre(box)
    radii = (round(0.75 * (box[2] - box[0])), round(0.6 * (box[3] - box[1])))
    return _paint_oval(crop, (round(x), round(y)), radii, texture)


def _paint_oval(
    crop: np.ndarray, centre: tuple[int, int], radii: tuple[int, int], texture: np.ndarray
) -> np.ndarray:
    mask = np.zeros(crop.shape[:2], np.uint8)
    cv2.ellipse(mask, centre, radii, 0, 0, 360, 1, -1)
    paint = cv2.resize(texture, (2 * radii[0], 2 * radii[1]), interpolation=cv2.INTER_AREA)
    whole = np.zeros(crop.shape, np.float32)
    left, top = centre[0] - radii[0], centre[1] - radii[1]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + 2 * radii[0], len(crop)), min(top + 2 * radii[1], len(crop))
    whole[y0:y1, x0:x1] = paint[y0 - top : y1 - top, x0 - left : x1 - left]
    return _blend(crop, whole, mask)


def paint_printed_mask(crop: np.ndarray, mouth_box: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Paint a printed cloth mask from the bridge of the nose to below the chin.

    Args:
        crop: The crop.
        mouth_box: Box of the mouth.
        texture: (height, width, 3) picture on the mask; it is resized.

    Returns:
        The painted crop.
    """
    size = len(crop)
    x, y = _centre(mouth_box)
    centre = (round(x), round(y + 0.02 * size))
    return _paint_oval(crop, centre, (round(0.27 * size), round(0.25 * size)), texture)


def paint_skin(crop: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Paint smooth skin of the face's own colour over a box, such as a fist or a cheek."""
    size = len(crop)
    cheeks = crop[round(0.58 * size) : round(0.64 * size), round(0.3 * size) : round(0.7 * size)]
    colour = np.median(cheeks.reshape(-1, 3), axis=0).astype(np.float32)
    shade = 0.85 + 0.3 * np.linspace(0, 1, 64, dtype=np.float32)[:, None, None]
    return paint_patch(crop, box, np.clip(np.tile(colour * shade, (1, 64, 1)), 0, 255))


def soften(crop: np.ndarray, side_px: int) -> np.ndarray:
    """Reduce a crop to a small side and enlarge it again, as if its face were small."""
    small = cv2.resize(crop, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (len(crop), len(crop)), interpolation=cv2.INTER_CUBIC)
