"""MediaPipe's iris network: the contours of an eye and of its iris."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from authface_data.faces.tflite import Network, Square, SquareSampler, to_picture
from authface_data.weights import MEDIAPIPE_IRIS

INPUT_PX = 64
NUM_CONTOUR_POINTS = 71
NUM_EYELID_POINTS = 16
"""The first points of the contour lie on the eyelids."""
SQUARE_SCALE = 2.3
"""Side of the square in widths of the eye."""


@dataclass(frozen=True)
class Eye:
    """The contours of an eye.

    Attributes:
        eyelids_px: (16, 2) pixel centres in the picture.
        iris_px: (5, 2) the centre of the iris, then four points on its edge.
    """

    eyelids_px: np.ndarray
    iris_px: np.ndarray


class IrisNetwork:
    """The network, which was trained on left eyes as seen in the image. Call `setup` before use."""

    def __init__(self) -> None:
        outputs = ("output_eyes_contours_and_brows", "output_iris")
        self._network = Network(MEDIAPIPE_IRIS, INPUT_PX, outputs)

    def setup(self, weights_dir: str | None) -> None:
        """Load the weights.

        Raises:
            MissingResourceError: If the weights are missing.
        """
        self._network.setup(weights_dir)

    def locate_in(
        self, picture: np.ndarray, squares: list[Square], *, is_right_eye: bool
    ) -> list[Eye]:
        """Locate the contours of one eye, once from every square.

        Args:
            picture: (height, width, 3) uint8 sRGB.
            squares: Squares around the eye, see `square_around_eye`.
            is_right_eye: Whether it is the right eye as seen in the image; it is mirrored.

        Returns:
            One result per square.
        """
        sampler = SquareSampler(picture, squares[0].side_px, INPUT_PX)
        return [self._run(sampler, square, is_right_eye) for square in squares]

    def _run(self, sampler: SquareSampler, square: Square, is_right_eye: bool) -> Eye:
        patch = sampler.sample(square)
        contour, iris = self._network.run(patch[:, ::-1] if is_right_eye else patch)
        points = np.concatenate([contour.reshape(-1, 3), iris.reshape(-1, 3)])[:, :2].astype(float)
        if is_right_eye:
            points[:, 0] = INPUT_PX - 1 - points[:, 0]
        points_px = to_picture(points, square, INPUT_PX)
        return Eye(points_px[:NUM_EYELID_POINTS], points_px[NUM_CONTOUR_POINTS:])


def square_around_eye(corners_px: np.ndarray) -> Square:
    """Compute the square around an eye that the network expects.

    Args:
        corners_px: (2, 2) left and right corner of the eye, as seen in the image.

    Returns:
        A square whose sides are parallel to the line through the corners.
    """
    across = corners_px[1] - corners_px[0]
    width_px = max(float(np.hypot(*across)), 1.0)
    angle = float(np.arctan2(across[1], across[0]))
    return Square(corners_px.mean(0), SQUARE_SCALE * width_px, angle)
