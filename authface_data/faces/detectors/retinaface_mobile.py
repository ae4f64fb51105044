"""RetinaFace with a MobileNetV1-0.25: small, fast on a CPU, its weights inside a package of the registry."""

from __future__ import annotations

import numpy as np

from authface_data.faces.detectors import Detection
from authface_data.weights import RETINAFACE_MOBILE, find

STRIDES_PX = (8, 16, 32)
ANCHOR_SIDES_PX = ((16, 32), (64, 128), (256, 512))
VARIANCES = (0.1, 0.2)
MEAN_BGR = (104.0, 117.0, 127.0)
NMS_OVERLAP = 0.4


class RetinaFaceMobile:
    """1.7 MB of weights, 0.05 s for a picture of 1024 px on one core."""

    revision = RETINAFACE_MOBILE.sha256
    uses_gpu = False

    def setup(self, device: str, weights_dir: str | None) -> None:
        import cv2

        self._cv2 = cv2
        self._net = cv2.dnn.readNetFromONNX(str(find(RETINAFACE_MOBILE, weights_dir)))

    def detect(self, picture: np.ndarray, min_score: float) -> list[Detection]:
        height, width = picture.shape[:2]
        blob = self._cv2.dnn.blobFromImage(picture[..., ::-1].copy(), 1.0, None, MEAN_BGR, swapRB=False)
        self._net.setInput(blob)
        loc, conf, points = (out[0] for out in self._net.forward(["loc", "conf", "landmarks"]))
        likely = conf[:, 1] > min_score
        if not likely.any():
            return []
        priors = anchors(width, height)[likely]
        boxes = decode_boxes(loc[likely], priors)
        landmarks = decode_points(points[likely], priors)
        scores = conf[likely, 1]
        corner_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        kept = self._cv2.dnn.NMSBoxes(corner_size.tolist(), scores.tolist(), min_score, NMS_OVERLAP)
        best = sorted((int(index) for index in np.ravel(kept)), key=lambda index: -scores[index])
        return [Detection(boxes[i].astype(float), float(scores[i]), landmarks[i].astype(float)) for i in best]


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
