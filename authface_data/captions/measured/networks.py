"""What the measures of gaze and background need from networks: the irises and the person's outline.

Both networks are MediaPipe's and small enough for a CPU: the segmentation of the person, including
hair and clothes, and the contours of the irises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from authface_data.faces.align import Quad, photo_to_crop
from authface_data.faces.iris import IrisNetwork, square_around_eye
from authface_data.faces.mesh import EYE_CORNERS, FaceMesh, crop_square
from authface_data.faces.tflite import Network
from authface_data.quality.face_scale import FACE_SCALE_PX
from authface_data.weights import MEDIAPIPE_PERSON

PERSON_INPUT_PX = 256
MAX_PERSON = 0.1
"""Largest probability of the person at a pixel of the background."""
MARGIN_PX = 12
"""Distance of the background from the person, so that strands of hair do not count."""

IRIS_MOVES: tuple[dict[str, float], ...] = (
    {},
    {"across": 0.04, "scale": 1.05},
    {"down": 0.04, "scale": 0.95},
)
"""The iris is located from several squares; the median is more accurate."""


class CropNetworks:
    """The networks. Call `setup` before use."""

    def __init__(self) -> None:
        self._person = Network(MEDIAPIPE_PERSON, PERSON_INPUT_PX, ("activation_10",))
        self._mesh = FaceMesh()
        self._iris = IrisNetwork()

    def setup(self, weights_dir: str | None) -> None:
        """Load the weights.

        Raises:
            MissingResourceError: If the weights are missing.
        """
        for network in (self._person, self._mesh, self._iris):
            network.setup(weights_dir)

    def find_background(self, crop: np.ndarray, row: Mapping[str, Any]) -> np.ndarray:
        """Find the pixels of the background, at a distance from the person and from padding.

        Args:
            crop: (512, 512, 3) uint8 sRGB.
            row: The row of `faces`, with the `width` and `height` of its photo.

        Returns:
            (512, 512) bool.
        """
        import cv2

        input_px = (PERSON_INPUT_PX, PERSON_INPUT_PX)
        reduced = cv2.resize(crop, input_px, interpolation=cv2.INTER_AREA)
        (person,) = self._person.run(reduced)
        person = cv2.resize(person.reshape(input_px), crop.shape[:2])
        background = (person < MAX_PERSON) & _photo_mask(row)
        side_px = 2 * MARGIN_PX + 1
        kernel = np.ones((side_px, side_px), np.uint8)
        return cv2.erode(background.astype(np.uint8), kernel, borderValue=1) > 0

    def locate_irises(self, crop: np.ndarray) -> np.ndarray:
        """Locate the iris of each eye relative to the eye's corners.

        Args:
            crop: (512, 512, 3) uint8 sRGB.

        Returns:
            (2, 2) float; a row for the left and for the right eye as seen in the image: the place
            along the line through the corners, -1 at the left corner and 1 at the right one, and
            the distance below that line, in half widths of the eye.
        """
        mesh, _ = self._mesh.locate(crop, crop_square(len(crop)))
        positions = [
            self._iris_position(crop, mesh.points_px[list(corners)], name == "right_eye")
            for name, corners in EYE_CORNERS.items()
        ]
        return np.array(positions)

    def _iris_position(
        self, crop: np.ndarray, corners: np.ndarray, is_right_eye: bool
    ) -> np.ndarray:
        square = square_around_eye(corners)
        squares = [square.moved(**move) for move in IRIS_MOVES]
        eyes = self._iris.locate_in(crop, squares, is_right_eye=is_right_eye)
        centre = np.median([eye.iris_px[0] for eye in eyes], axis=0)
        across = corners[1] - corners[0]
        axes = np.array([across, (-across[1], across[0])])
        return axes @ (centre - corners.mean(0)) / max(across @ across, 1.0) * 2


def _photo_mask(row: Mapping[str, Any]) -> np.ndarray:
    """(512, 512) bool: the part of the crop that lies in the photograph."""
    import cv2

    mask = np.ones((FACE_SCALE_PX, FACE_SCALE_PX), np.uint8)
    if row.get("quad_px") is None or not row.get("width"):
        return mask > 0
    quad = Quad(np.array([list(corner) for corner in row["quad_px"]]), float(row["qsize_px"]))
    width, height = int(row["width"]), int(row["height"])
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)]) - 0.5
    mask[:] = 0
    in_crop = np.rint(photo_to_crop(corners, quad, FACE_SCALE_PX)).astype(np.int32)
    cv2.fillConvexPoly(mask, in_crop, 1)
    return mask > 0
