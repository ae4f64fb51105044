"""The common scale of the artefact measures: they resize every crop to 512 px.

Without it, a measure in pixels would call the same face noisy at 2048 px and clean at 512 px, or
call a sharp large face blurred. Only `detail`, which measures the original pixels of the crop, and
`jpeg`, which locates the blocks by the quad, do not resize the crop; `pepper` also measures large
crops at 1024 px.
"""

from __future__ import annotations

import numpy as np

FACE_SCALE_PX = 512

SKIN_POINTS = (
    (0.34, 0.60),  # cheeks
    (0.66, 0.60),
    (0.50, 0.27),  # forehead
    (0.42, 0.27),
    (0.58, 0.27),
    (0.30, 0.55),  # cheeks
    (0.70, 0.55),
    (0.38, 0.66),
    (0.62, 0.66),
)
"""Where FFHQ alignment places bare skin: (x, y) as shares of the crop's side."""

PATCH_HALF_PX = 20
"""Half side of a skin patch, without its middle pixel."""


def resize_to_face_scale(crop: np.ndarray) -> np.ndarray:
    """Resize a crop to 512 px: by averaging if it is larger, bicubically if it is smaller.

    Args:
        crop: (size, size, 3) uint8.

    Returns:
        (512, 512, 3) uint8.
    """
    import cv2

    if len(crop) == FACE_SCALE_PX:
        return crop
    interpolation = cv2.INTER_AREA if len(crop) > FACE_SCALE_PX else cv2.INTER_CUBIC
    return cv2.resize(crop, (FACE_SCALE_PX, FACE_SCALE_PX), interpolation=interpolation)


def skin_patches(plane: np.ndarray) -> list[np.ndarray]:
    """Cut out patches of bare skin on the cheeks and the forehead.

    Args:
        plane: (512, 512, ...) array at face scale.

    Returns:
        (41, 41, ...) arrays, in the order of `SKIN_POINTS`.
    """
    patches = []
    for x, y in SKIN_POINTS:
        column = round(x * FACE_SCALE_PX)
        row = round(y * FACE_SCALE_PX)
        rows = slice(row - PATCH_HALF_PX, row + PATCH_HALF_PX + 1)
        columns = slice(column - PATCH_HALF_PX, column + PATCH_HALF_PX + 1)
        patches.append(plane[rows, columns])
    return patches


def split_into_blocks(plane: np.ndarray, side: int) -> np.ndarray:
    """Split a plane into square blocks. Remainders at the right and bottom edge are dropped.

    Args:
        plane: (height, width) array.
        side: Side of the blocks in pixels.

    Returns:
        (n, side, side) blocks, row by row.
    """
    height = plane.shape[0] // side * side
    width = plane.shape[1] // side * side
    cells = plane[:height, :width].reshape(height // side, side, width // side, side)
    return cells.swapaxes(1, 2).reshape(-1, side, side)


def sigmoid(value: float, midpoint: float, width: float) -> float:
    """Map a measured value to a score with the logistic function.

    The function is strictly monotonic within 50 widths of the midpoint.

    Args:
        value: The measured value.
        midpoint: Value at which the score is 0.5.
        width: Scale of the function; the score is 0.73 at `midpoint + width`.

    Returns:
        The score, between 0 and 1.
    """
    return float(1 / (1 + np.exp(np.clip((midpoint - value) / width, -50, 50))))
