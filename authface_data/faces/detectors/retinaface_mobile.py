"""RetinaFace with a MobileNetV1-0.25 backbone: a small ONNX model that is fast on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from authface_data.faces.detectors import Detection
from authface_data.faces.detectors.anchors import decode_detections
from authface_data.weights import RETINAFACE_MOBILE, find_weights

MEAN_BGR = (104.0, 117.0, 127.0)


class RetinaFaceMobile:
    """RetinaFace with 1.7 MB of weights. A picture of 1024 px takes 0.05 s on one core."""

    revision = RETINAFACE_MOBILE.sha256
    uses_gpu = False
    batch_size = 1

    def setup(self, device: str, weights_dir: str | None) -> None:
        """Load the network. It always runs on the CPU."""
        import cv2

        self._cv2 = cv2
        path = find_weights(RETINAFACE_MOBILE, weights_dir)
        self._network = cv2.dnn.readNetFromONNX(str(path))

    def detect(self, pictures: Sequence[np.ndarray], min_score: float) -> list[list[Detection]]:
        """Detect the faces of each picture, highest score first."""
        return [self._detect_one(picture, min_score) for picture in pictures]

    def _detect_one(self, picture: np.ndarray, min_score: float) -> list[Detection]:
        height, width = picture.shape[:2]
        bgr = picture[..., ::-1].copy()
        blob = self._cv2.dnn.blobFromImage(bgr, 1.0, None, MEAN_BGR, swapRB=False)
        self._network.setInput(blob)
        outputs = self._network.forward(["loc", "conf", "landmarks"])
        box_offsets, confidences, landmark_offsets = (output[0] for output in outputs)
        return decode_detections(
            box_offsets=box_offsets,
            scores=confidences[:, 1],
            landmark_offsets=landmark_offsets,
            size_px=(width, height),
            min_score=min_score,
        )
