"""MediaPipe's face mesh: 468 landmarks, and whether there is a face at all.

The network takes a square around the face. Its first result gives a better square, from which the
final one is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from authface_data.faces.tflite import Network, Square, SquareSampler, to_picture
from authface_data.weights import MEDIAPIPE_MESH

INPUT_PX = 192
NUM_POINTS = 468

# Indices into the 468 landmarks. Left and right are as seen in the image.
LEFT_EYE = [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7]
RIGHT_EYE = [362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382]
LIPS = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146]
INNER_LIPS = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
INNER_LIPS += [324, 318, 402, 317, 14, 87, 178, 88, 95]
EYE_CORNERS = {"left_eye": (33, 133), "right_eye": (362, 263)}
"""Corners of each eye, the left one first."""

DLIB68 = (
    (162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389)  # jaw
    + (71, 63, 105, 66, 107, 336, 296, 334, 293, 301)  # eyebrows
    + (168, 197, 5, 4, 75, 97, 2, 326, 305)  # nose
    + (33, 160, 158, 133, 153, 144)  # left eye
    + (362, 385, 387, 263, 373, 380)  # right eye
    + (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181)  # outer lips
    + (78, 82, 13, 312, 308, 317, 14, 87)  # inner lips
)
"""The landmark that stands for each of dlib's 68."""

SQUARE_SCALE = 1.5
"""Side of the final square in longer sides of the landmarks' bounding box."""

CROP_SQUARE = ((0.5, 0.56), 0.78)
"""Centre and side of the first square in an FFHQ-aligned crop, as shares of the crop's side."""


@dataclass(frozen=True)
class Mesh:
    """The landmarks of a face.

    Attributes:
        points_px: (468, 2) pixel centres in the picture.
        presence: Probability of a face in the square, 0 to 1.
    """

    points_px: np.ndarray
    presence: float


class FaceMesh:
    """The network of the face mesh. Call `setup` before use."""

    def __init__(self) -> None:
        self._network = Network(MEDIAPIPE_MESH, INPUT_PX, ("conv2d_31", "conv2d_21"))

    def setup(self, weights_dir: str | None) -> None:
        """Load the weights.

        Raises:
            MissingResourceError: If the weights are missing.
        """
        self._network.setup(weights_dir)

    def locate(self, picture: np.ndarray, first_square: Square) -> tuple[Mesh, Square]:
        """Locate the landmarks of one face.

        Args:
            picture: (height, width, 3) uint8 sRGB.
            first_square: A square around the face, about 1.5 times as large as the face.

        Returns:
            The landmarks, and the square that they were computed from.
        """
        sampler = SquareSampler(picture, first_square.side_px, INPUT_PX)
        square = square_around(self._run(sampler, first_square).points_px)
        return self._run(sampler, square), square

    def locate_in(self, picture: np.ndarray, squares: Sequence[Square]) -> list[Mesh]:
        """Compute the landmarks once from every square.

        Args:
            picture: (height, width, 3) uint8 sRGB.
            squares: Squares around the face, all of about the same size.

        Returns:
            One result per square.
        """
        sampler = SquareSampler(picture, squares[0].side_px, INPUT_PX)
        return [self._run(sampler, square) for square in squares]

    def _run(self, sampler: SquareSampler, square: Square) -> Mesh:
        logit, points = self._network.run(sampler.sample(square))
        in_square = points.reshape(NUM_POINTS, 3)[:, :2].astype(float)
        presence = 1 / (1 + np.exp(-float(logit.item())))
        return Mesh(to_picture(in_square, square, INPUT_PX), presence)


def square_around(points_px: np.ndarray) -> Square:
    """Compute the square around the landmarks of a face that the network expects.

    Args:
        points_px: (468, 2) landmarks.

    Returns:
        A square whose sides are parallel to the line through the eyes.
    """
    low, high = points_px.min(0), points_px.max(0)
    (left, _), (_, right) = EYE_CORNERS["left_eye"], EYE_CORNERS["right_eye"]
    across = points_px[right] - points_px[left]
    angle = float(np.arctan2(across[1], across[0]))
    return Square((low + high) / 2, SQUARE_SCALE * float((high - low).max()), angle)


def crop_square(size_px: int) -> Square:
    """Return the first square of an FFHQ-aligned crop.

    Args:
        size_px: Side of the crop.

    Returns:
        A square in pixels of the crop.
    """
    centre, side = CROP_SQUARE
    return Square(np.array(centre) * size_px - 0.5, side * size_px)
