"""Boxes [x0, y0, x1, y1], pixel edges, and how much of each other they hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = np.ndarray | Sequence[float]


def area(box: Box) -> float:
    """px²."""
    return float((box[2] - box[0]) * (box[3] - box[1]))


def shared_area(box: Box, other: Box) -> float:
    """px² that lie in both; 0 where they do not meet."""
    width, height = (
        min(box[2], other[2]) - max(box[0], other[0]),
        min(box[3], other[3]) - max(box[1], other[1]),
    )
    return float(max(width, 0) * max(height, 0))


def overlap(box: Box, other: Box) -> float:
    """Intersection over union, 0 to 1."""
    shared = shared_area(box, other)
    return shared / (area(box) + area(other) - shared)
