"""MediaPipe's networks, run by OpenCV.

The networks are Apache-2.0 and come from a wheel of mediapipe (see weights.py), which is unpacked
but not installed. Each takes a rotated square of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from authface_data.weights import WeightFile, find_weights

if TYPE_CHECKING:
    import cv2

MIN_REDUCTION = 1.2
"""A square that is reduced by less than this factor is sampled without a low-pass filter."""
SIGMA_PER_REDUCTION = 0.4
"""Sigma of the low-pass filter, in pixels of the picture per factor of the reduction."""


@dataclass(frozen=True)
class Square:
    """A rotated square in a picture.

    Attributes:
        centre_px: (2,) pixel centre.
        side_px: Length of a side.
        angle: Rotation in radians, clockwise in the image.
    """

    centre_px: np.ndarray
    side_px: float
    angle: float = 0.0

    def moved(
        self, across: float = 0.0, down: float = 0.0, scale: float = 1.0, turn: float = 0.0
    ) -> Square:
        """Move the square.

        Args:
            across: Shift to the right, in sides of the square.
            down: Shift downwards, in sides.
            scale: Factor on the side.
            turn: Rotation in radians, clockwise in the image.

        Returns:
            The moved square.
        """
        shift_px = np.array([across, down]) * self.side_px
        return Square(self.centre_px + shift_px, self.side_px * scale, self.angle + turn)

    def matrix(self, size_px: int) -> np.ndarray:
        """Compute the affine map from pixels of the sampled square to the picture.

        Args:
            size_px: Side of the sampled square.

        Returns:
            (2, 3) float64, as `cv2.warpAffine` takes it.
        """
        step = self.side_px / size_px
        cosine, sine = step * np.cos(self.angle), step * np.sin(self.angle)
        axes = np.array([[cosine, -sine], [sine, cosine]])
        origin = self.centre_px - axes.sum(1) * (size_px - 1) / 2
        return np.column_stack([axes, origin])


class Network:
    """One network of MediaPipe.

    Args:
        weights: Its file.
        input_px: Side of its input.
        outputs: Names of the outputs to return, in order.
    """

    def __init__(self, weights: WeightFile, input_px: int, outputs: tuple[str, ...]) -> None:
        self.weights = weights
        self.input_px = input_px
        self._outputs = list(outputs)
        self._net: cv2.dnn.Net | None = None

    def setup(self, weights_dir: str | None) -> None:
        """Load the weights.

        Args:
            weights_dir: Folder of the setting `weights_dir`, if any.

        Raises:
            MissingResourceError: If the weights are missing.
        """
        import cv2

        path = find_weights(self.weights, weights_dir)
        # OpenCV's newer engine returns the first output only.
        self._net = cv2.dnn.readNetFromTFLite(str(path), cv2.dnn.ENGINE_CLASSIC)

    def run(self, patch: np.ndarray) -> list[np.ndarray]:
        """Run the network.

        Args:
            patch: (input_px, input_px, 3) uint8 sRGB.

        Returns:
            The outputs, float32, in the order of `outputs`.
        """
        assert self._net is not None, "call setup first"
        self._net.setInput(patch.astype(np.float32).transpose(2, 0, 1)[None] / 255)
        return list(self._net.forward(self._outputs))


class SquareSampler:
    """Samples squares of one picture that are all reduced by about the same factor.

    Args:
        picture: (height, width, 3) uint8 sRGB.
        side_px: Typical side of the squares.
        size_px: Side of the samples.
    """

    def __init__(self, picture: np.ndarray, side_px: float, size_px: int) -> None:
        import cv2

        self._size_px = size_px
        reduction = side_px / size_px
        self._picture = picture
        if reduction >= MIN_REDUCTION:
            self._picture = cv2.GaussianBlur(picture, (0, 0), SIGMA_PER_REDUCTION * reduction)

    def sample(self, square: Square) -> np.ndarray:
        """Sample a square; outside of the picture its edge is repeated.

        Args:
            square: The square.

        Returns:
            (size_px, size_px, 3) uint8.
        """
        import cv2

        return cv2.warpAffine(
            self._picture,
            square.matrix(self._size_px),
            (self._size_px, self._size_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )


def to_picture(points: np.ndarray, square: Square, size_px: int) -> np.ndarray:
    """Map points of a sampled square to the picture.

    Args:
        points: (n, 2) pixel centres in the sampled square.
        square: The square.
        size_px: Side of the sampled square.

    Returns:
        (n, 2) pixel centres in the picture.
    """
    matrix = square.matrix(size_px)
    return points @ matrix[:, :2].T + matrix[:, 2]
