"""What hides an eye or a mouth, painted onto real crops: (H, H, 3) uint8, boxes [x0, y0, x1, y1] in crop pixels."""

from __future__ import annotations

import cv2
import numpy as np


def _blend(crop: np.ndarray, paint: np.ndarray, mask: np.ndarray) -> np.ndarray:
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5)[..., None]
    return np.clip(crop * (1 - soft) + paint * soft, 0, 255).astype(np.uint8)


def _centre(box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def sunglasses(crop, left_box, right_box, tint=(24, 22, 26), rng=None):
    """Two dark lenses, a bridge, a reflection in each."""
    size, paint, mask = (
        len(crop),
        crop.astype(np.float32).copy(),
        np.zeros(crop.shape[:2], np.uint8),
    )
    (lx, ly), (rx, ry) = _centre(left_box), _centre(right_box)
    angle = float(np.degrees(np.arctan2(ry - ly, rx - lx)))
    axes = (round(0.44 * float(np.hypot(rx - lx, ry - ly))), round(0.085 * size))
    for x, y in ((lx, ly), (rx, ry)):
        cv2.ellipse(mask, (round(x), round(y + 0.01 * size)), axes, angle, 0, 360, 1, -1)
    cv2.line(
        mask,
        (round(lx), round(ly - 0.02 * size)),
        (round(rx), round(ry - 0.02 * size)),
        1,
        max(round(0.015 * size), 1),
    )
    rows = np.linspace(0, 26, size)[:, None, None]
    paint = np.array(tint, np.float32) + rows + 0.06 * crop
    for x, y in ((lx, ly), (rx, ry)):
        shine = np.zeros(crop.shape[:2], np.uint8)
        spot = (round(x - 0.04 * size), round(y - 0.03 * size))
        cv2.ellipse(shine, spot, (round(0.03 * size), round(0.012 * size)), -25, 0, 360, 1, -1)
        paint = paint + 70 * cv2.GaussianBlur(shine.astype(np.float32), (0, 0), 3)[..., None]
    return _blend(crop, paint, mask)


def _fingers(crop, box, count=3):
    """Fingers of the face's own colour, side by side over a box, each rounded by shading, with fine texture."""
    size = len(crop)
    x0, y0, x1, y1 = (round(value) for value in box)
    grow = round(0.03 * size)
    x0, y0, x1, y1 = (
        max(x0 - grow, 0),
        max(y0 - grow, 0),
        min(x1 + grow, size),
        min(y1 + grow, size),
    )
    cheek = crop[
        round(0.58 * size) : round(0.64 * size), round(0.3 * size) : round(0.7 * size)
    ].reshape(-1, 3)
    colour = np.median(cheek, axis=0)
    across = np.abs(np.sin(np.linspace(0, np.pi * count, y1 - y0)))[:, None, None]
    shade = 0.78 + 0.27 * np.sqrt(across)
    noise = np.random.default_rng(3).normal(0, 1, (y1 - y0, x1 - x0, 1)).astype(np.float32)
    noise = 0.02 * cv2.GaussianBlur(noise, (0, 0), 1.2)[..., None]
    paint, mask = crop.astype(np.float32).copy(), np.zeros(crop.shape[:2], np.uint8)
    paint[y0:y1, x0:x1] = colour * (shade + noise)
    mask[y0:y1, x0:x1] = 1
    return _blend(crop, paint, mask)


def hand(crop, box):
    """A hand over an eye or the mouth."""
    return _fingers(crop, box)


def mask(crop, mouth_box, colour=(150, 190, 215)):
    """A surgical mask from the nose to the chin, with folds."""
    size = len(crop)
    x, y = _centre(mouth_box)
    shape = np.zeros(crop.shape[:2], np.uint8)
    points = np.array(
        [(-0.25, -0.13), (0, -0.17), (0.25, -0.13), (0.22, 0.16), (0, 0.24), (-0.22, 0.16)]
    ) * size + (x, y)
    cv2.fillPoly(shape, [np.rint(points).astype(np.int32)], 1)
    folds = 1 - 0.08 * (np.sin(np.arange(size) * 2 * np.pi / (0.05 * size)) > 0.6)[:, None, None]
    light = (
        float(
            crop[
                round(0.5 * size) : round(0.6 * size), round(0.3 * size) : round(0.7 * size)
            ].mean()
        )
        / 170
    )
    return _blend(
        crop, np.array(colour, np.float32) * folds * light + np.zeros_like(crop, np.float32), shape
    )
