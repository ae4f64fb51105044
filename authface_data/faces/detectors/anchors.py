"""What every RetinaFace shares: its anchors, how its offsets are read, and which of overlapping boxes stay."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from authface_data.faces.detectors import Detection

STRIDES_PX = (8, 16, 32)
ANCHOR_SIDES_PX = ((16, 32), (64, 128), (256, 512))
VARIANCES = (0.1, 0.2)
NMS_OVERLAP = 0.4


@lru_cache(maxsize=8)
def anchors(width: int, height: int) -> np.ndarray:
    """(N, 3) centres and side [cx, cy, side] in pixels: strides 8, 16, 32, two squares at every cell, row by row."""
    rows = []
    for stride, sides in zip(STRIDES_PX, ANCHOR_SIDES_PX, strict=True):
        ys, xs = np.mgrid[0 : -(-height // stride), 0 : -(-width // stride)]
        centres = (np.stack([xs.ravel(), ys.ravel()], axis=1) + 0.5) * stride
        for_each_side = [np.column_stack([centres, np.full(len(centres), side)]) for side in sides]
        rows.append(np.stack(for_each_side, axis=1).reshape(-1, 3))
    return np.concatenate(rows).astype(np.float32)


def decode_boxes(loc: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """(N, 4) pixel edges from the net's offsets (N, 4): centre + variance * offset * side, side * exp(variance * offset)."""
    centre = priors[:, :2] + loc[:, :2] * VARIANCES[0] * priors[:, 2:]
    size = priors[:, 2:] * np.exp(loc[:, 2:] * VARIANCES[1])
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1)


def decode_points(points: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """(N, 5, 2) pixels from the net's offsets (N, 10)."""
    return priors[:, None, :2] + points.reshape(-1, 5, 2) * VARIANCES[0] * priors[:, None, 2:]


def detections(
    loc: np.ndarray,
    scores: np.ndarray,
    points: np.ndarray,
    size_px: tuple[int, int],
    min_score: float,
) -> list[Detection]:
    """Faces from the net's outputs (N, 4), (N,) and (N, 10) on a picture of (width, height), best first."""
    import cv2

    likely = scores > min_score
    if not likely.any():
        return []
    priors = anchors(*size_px)[likely]
    boxes, landmarks = decode_boxes(loc[likely], priors), decode_points(points[likely], priors)
    scores = scores[likely]
    corner_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(corner_size.tolist(), scores.tolist(), min_score, NMS_OVERLAP)
    best = sorted((int(index) for index in np.ravel(kept)), key=lambda index: -scores[index])
    return [
        Detection(boxes[i].astype(float), float(scores[i]), landmarks[i].astype(float))
        for i in best
    ]
