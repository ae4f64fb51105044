"""Geometry of boxes: (left, top, right, bottom) in pixel edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = np.ndarray | Sequence[float]


def area(box: Box) -> float:
    """Return the area of a box in square pixels."""
    return float((box[2] - box[0]) * (box[3] - box[1]))


def longer_side(box: Box) -> float:
    """Return the longer side of a box in pixels."""
    return float(max(box[2] - box[0], box[3] - box[1]))


def intersection_area(box: Box, other: Box) -> float:
    """Return the area that two boxes share.

    Args:
        box: A box.
        other: Another box in the same coordinates.

    Returns:
        The area in square pixels; 0 if the boxes do not overlap.
    """
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return float(max(width, 0) * max(height, 0))


def iou(box: Box, other: Box) -> float:
    """Return the intersection over union of two boxes.

    Args:
        box: A box.
        other: Another box in the same coordinates.

    Returns:
        0 for disjoint boxes, 1 for equal boxes.
    """
    intersection = intersection_area(box, other)
    return intersection / (area(box) + area(other) - intersection)
