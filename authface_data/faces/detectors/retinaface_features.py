"""Deep features of pictures: the backbone of `retinaface-mobile`, a MobileNetV1."""

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


class RetinaFaceFeatures:
    """Computes the features of five layers of the detector.

    Args:
        weights_dir: Folder of downloaded weights, if any.
    """

    def __init__(self, weights_dir: str | None = None) -> None:
        model = find_weights(RETINAFACE_MOBILE, weights_dir).read_bytes() + _more_outputs(LAYERS)
        self._network = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))

    def compute(self, picture: np.ndarray) -> list[np.ndarray]:
        """Compute the features of a picture.

        Args:
            picture: (height, width, 3) uint8 RGB.

        Returns:
            (channels, height, width) float32 for each of `LAYERS`.
        """
        resized = cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
        bgr = np.ascontiguousarray(resized[..., ::-1])
        self._network.setInput(cv2.dnn.blobFromImage(bgr, 1.0, None, MEAN_BGR, swapRB=False))
        names = self._network.getUnconnectedOutLayersNames()
        outputs = dict(zip(names, self._network.forward(names), strict=True))
        return [outputs[layer][0] for layer in LAYERS]


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
