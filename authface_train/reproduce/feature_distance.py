"""A distance of deep features that needs no download: LPIPS's formula on RetinaFace's backbone.

The features are those of the MobileNetV1 of `retinaface-mobile`, which was trained to find faces.
As in LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", Eq. 1) they are normalised per position, and squared differences are averaged over
positions and levels. LPIPS also weights the channels, fitted to human judgements; here all weights
are 1, so values cannot be compared with LPIPS.
"""

from __future__ import annotations

import cv2
import numpy as np

from authface_data.faces.detectors.retinaface_mobile import MEAN_BGR
from authface_data.weights import RETINAFACE_MOBILE, find_weights

SIDE_PX = 256
"""Pictures are resized to this side, at which the detector recognises the parts of a face."""
LAYERS = (
    "/fx/stage1/stage1.1/stage1.1.1/stage1.1.1.2/LeakyRelu_output_0",
    "/fx/stage1/stage1.3/stage1.3.1/stage1.3.1.2/LeakyRelu_output_0",
    "/fx/stage1/stage1.5/stage1.5.1/stage1.5.1.2/LeakyRelu_output_0",
    "/fx/stage2/stage2.5/stage2.5.1/stage2.5.1.2/LeakyRelu_output_0",
    "/fx/stage3/stage3.1/stage3.1.1/stage3.1.1.2/LeakyRelu_output_0",
)
"""Outputs of the backbone at strides 2, 4, 8, 16 and 32."""


class FeatureDistance:
    """Compares pictures by the features of a face detector."""

    def __init__(self) -> None:
        model = find_weights(RETINAFACE_MOBILE).read_bytes() + _more_outputs(LAYERS)
        self._network = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))

    def measure(self, picture: np.ndarray, reference: np.ndarray) -> float:
        """The distance of two pictures.

        Args:
            picture: (height, width, 3) uint8 RGB.
            reference: The same shape.

        Returns:
            At least 0; 0 for equal pictures.
        """
        differences = [
            np.square(first - second).sum(axis=0).mean()
            for first, second in zip(
                self._features(picture), self._features(reference), strict=True
            )
        ]
        return float(np.mean(differences))

    def _features(self, picture: np.ndarray) -> list[np.ndarray]:
        """The normalised features of each layer, (channels, height, width) each."""
        resized = cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
        blob = cv2.dnn.blobFromImage(resized, 1.0, None, MEAN_BGR[::-1], swapRB=False)
        # The network expects BGR.
        self._network.setInput(np.ascontiguousarray(blob[:, ::-1]))
        names = self._network.getUnconnectedOutLayersNames()
        outputs = dict(zip(names, self._network.forward(names), strict=True))
        features = [outputs[layer][0] for layer in LAYERS]
        return [array / (np.linalg.norm(array, axis=0) + 1e-10) for array in features]


def _more_outputs(names: tuple[str, ...]) -> bytes:
    """A partial ONNX model with outputs.

    Protocol buffers that are concatenated are merged, so appended to a model it adds its outputs.
    Field numbers are those of onnx.proto: ModelProto.graph 7, GraphProto.output 12, ValueInfoProto
    name 1 and type 2.
    """
    dimensions = b"".join(_field(1, _field(2, axis)) for axis in (b"n", b"c", b"h", b"w"))
    float_tensor = bytes([1 << 3, 1]) + _field(2, dimensions)
    value_type = _field(2, _field(1, float_tensor))
    outputs = b"".join(_field(12, _field(1, name.encode()) + value_type) for name in names)
    return _field(7, outputs)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    length = len(content)
    encoded_length = bytearray()
    while length > 127:
        encoded_length.append(length & 127 | 128)
        length >>= 7
    encoded_length.append(length)
    return bytes([number << 3 | 2]) + bytes(encoded_length) + content
