"""The size that artefacts are measured at: a face of 512 px, whatever the crop's own size.

A measure in pixels would call the same face noisy at 2048 and clean at 512, or a sharp large one blurred. Only `detail`, which
is about the crop's own pixels, and `jpeg`, which knows where a block is, look at the crop as it is.
"""

from __future__ import annotations

import numpy as np

SIZE_PX = 512
# Where FFHQ's alignment puts things, in parts of the side: (x, y) of patches of bare skin, on cheeks and forehead.
SKIN = (
    (0.34, 0.60), (0.66, 0.60), (0.50, 0.27), (0.42, 0.27), (0.58, 0.27), (0.30, 0.55), (0.70, 0.55), (0.38, 0.66), (0.62, 0.66)
)  # fmt: skip
PATCH_HALF_PX = 20


def at_face_scale(crop: np.ndarray) -> np.ndarray:
    """(H, H, 3) uint8 to (512, 512, 3): averaged down, or up by bicubic interpolation."""
    import cv2

    if len(crop) == SIZE_PX:
        return crop
    way = cv2.INTER_AREA if len(crop) > SIZE_PX else cv2.INTER_CUBIC
    return cv2.resize(crop, (SIZE_PX, SIZE_PX), interpolation=way)


def skin_patches(plane: np.ndarray) -> list[np.ndarray]:
    """The patches (41, 41, …) of bare skin of a plane (512, 512, …) at face scale."""
    half, patches = PATCH_HALF_PX, []
    for x, y in SKIN:
        column, row = round(x * SIZE_PX), round(y * SIZE_PX)
        patches.append(plane[row - half : row + half + 1, column - half : column + half + 1])
    return patches


def blocks(plane: np.ndarray, side: int) -> np.ndarray:
    """(n, side, side): a plane (H, W) in squares, what is left over at the right and the bottom dropped."""
    height, width = plane.shape[0] // side * side, plane.shape[1] // side * side
    cells = plane[:height, :width].reshape(height // side, side, width // side, side)
    return cells.swapaxes(1, 2).reshape(-1, side, side)


def rising(value: float, middle: float, width: float) -> float:
    """0 for values far below the middle, 1 far above it, .5 at it: never quite flat, so that worse is always lower."""
    return float(1 / (1 + np.exp(np.clip((middle - value) / width, -50, 50))))
