"""Post-processing that all RetinaFace models share: anchors, decoding of offsets, and NMS."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from authface_data.faces.detectors import Detection

STRIDES_PX = (8, 16, 32)
ANCHOR_SIDES_PX = ((16, 32), (64, 128), (256, 512))
"""Sides of the anchors at every stride."""

VARIANCES = (0.1, 0.2)
"""Factors on the network's offsets of centres and landmarks, and of the logarithm of sizes."""

NMS_IOU = 0.4
"""Boxes that overlap a better one by more than this IoU are suppressed."""


@lru_cache(maxsize=8)
def anchor_grid(width: int, height: int) -> np.ndarray:
    """Compute the anchors of a picture: two squares at every cell of every stride, row by row.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.

    Returns:
        (n, 3) float32: centre x, centre y and side of each anchor in pixels.
    """
    levels = []
    for stride, sides in zip(STRIDES_PX, ANCHOR_SIDES_PX, strict=True):
        ys, xs = np.mgrid[0 : -(-height // stride), 0 : -(-width // stride)]
        centres = (np.stack([xs.ravel(), ys.ravel()], axis=1) + 0.5) * stride
        by_side = [np.column_stack([centres, np.full(len(centres), side)]) for side in sides]
        levels.append(np.stack(by_side, axis=1).reshape(-1, 3))
    return np.concatenate(levels).astype(np.float32)


def decode_boxes(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Decode boxes from the network's offsets.

    The centre is anchor + variance * offset * side, the size is side * exp(variance * offset).

    Args:
        offsets: (n, 4) box output of the network.
        anchors: (n, 3) anchors.

    Returns:
        (n, 4) pixel edges left, top, right, bottom.
    """
    centre = anchors[:, :2] + offsets[:, :2] * VARIANCES[0] * anchors[:, 2:]
    size = anchors[:, 2:] * np.exp(offsets[:, 2:] * VARIANCES[1])
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1)


def decode_landmarks(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Decode landmarks from the network's offsets.

    Args:
        offsets: (n, 10) landmark output of the network.
        anchors: (n, 3) anchors.

    Returns:
        (n, 5, 2) landmarks in pixels.
    """
    relative = offsets.reshape(-1, 5, 2) * VARIANCES[0] * anchors[:, None, 2:]
    return anchors[:, None, :2] + relative


def decode_detections(
    *,
    box_offsets: np.ndarray,
    scores: np.ndarray,
    landmark_offsets: np.ndarray,
    size_px: tuple[int, int],
    min_score: float,
) -> list[Detection]:
    """Turn the outputs of the network for one picture into faces, with NMS.

    Args:
        box_offsets: (n, 4) offsets of the boxes from the n anchors.
        scores: (n,) confidence, 0 to 1.
        landmark_offsets: (n, 10) offsets of the landmarks.
        size_px: (width, height) of the picture.
        min_score: Lowest score of a face.

    Returns:
        The faces, highest score first.
    """
    import cv2

    is_candidate = scores > min_score
    if not is_candidate.any():
        return []
    candidate_anchors = anchor_grid(*size_px)[is_candidate]
    boxes = decode_boxes(box_offsets[is_candidate], candidate_anchors)
    landmarks = decode_landmarks(landmark_offsets[is_candidate], candidate_anchors)
    scores = scores[is_candidate]

    # OpenCV takes boxes as left, top, width, height.
    opencv_boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(opencv_boxes.tolist(), scores.tolist(), min_score, NMS_IOU)
    indices = sorted((int(index) for index in np.ravel(kept)), key=lambda index: -scores[index])
    return [
        Detection(
            box_px=boxes[index].astype(float),
            score=float(scores[index]),
            landmarks5_px=landmarks[index].astype(float),
        )
        for index in indices
    ]
