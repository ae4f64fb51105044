"""Landmarks of a detected face: 68 points by dlib or MediaPipe, or the detector's five points."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from authface_data.faces.align import ffhq_quad
from authface_data.faces.mesh import DLIB68 as MESH_INDICES
from authface_data.faces.mesh import FaceMesh, crop_square
from authface_data.faces.tflite import Square
from authface_data.weights import DLIB68, MEDIAPIPE_MESH, find_weights
from manifests.support.errors import UserError
from manifests.support.text import unknown_name

# Indices into dlib's 68 landmarks. Left and right are as seen in the image.
LEFT_EYE = slice(36, 42)
RIGHT_EYE = slice(42, 48)
MOUTH = slice(48, 68)
MOUTH_CORNERS = (48, 54)
NOSE_TIP = 30


class Landmarker(Protocol):
    """Locates 68 landmarks of a detected face.

    Attributes:
        revision: Identifies the weights.
    """

    revision: str

    def setup(self, weights_dir: str | None) -> None:
        """Load the model.

        Raises:
            MissingResourceError: If the weights are missing.
        """
        ...

    def locate(self, picture: np.ndarray, landmarks5_px: np.ndarray) -> np.ndarray | None:
        """Locate the landmarks of one face.

        Args:
            picture: (height, width, 3) uint8 sRGB.
            landmarks5_px: (5, 2) landmarks of the detector, in pixels of the picture.

        Returns:
            (68, 2) float64 in pixels of the picture, or None if the backend has no 68 landmarks.
        """
        ...


class Dlib68:
    """dlib's shape predictor.

    It starts from a square derived from the five landmarks. Starting from the detector's box would
    double its error.
    """

    revision = DLIB68.sha256

    def setup(self, weights_dir: str | None) -> None:
        """Load the shape predictor."""
        import dlib

        self._dlib = dlib
        self._predictor = _load_predictor(find_weights(DLIB68, weights_dir))

    def locate(self, picture: np.ndarray, landmarks5_px: np.ndarray) -> np.ndarray:
        """Locate the 68 landmarks.

        Returns:
            (68, 2) float64 in pixels of the picture.
        """
        x0, y0, x1, y1 = (round(float(edge)) for edge in predictor_square(landmarks5_px))
        rectangle = self._dlib.rectangle(x0, y0, x1 - 1, y1 - 1)
        shape = self._predictor(np.ascontiguousarray(picture), rectangle)
        return np.array([(point.x, point.y) for point in shape.parts()], float)


class MediaPipe68:
    """MediaPipe's face mesh, reduced to the points that correspond to dlib's 68.

    Its licence allows commercial use, and it follows profiles, where dlib's points lag behind. Its
    points 0 to 16 lie on the outline of the mesh, which ends before the ears.
    """

    revision = MEDIAPIPE_MESH.sha256

    def __init__(self) -> None:
        self._mesh = FaceMesh()

    def setup(self, weights_dir: str | None) -> None:
        """Load the face mesh."""
        self._mesh.setup(weights_dir)

    def locate(self, picture: np.ndarray, landmarks5_px: np.ndarray) -> np.ndarray:
        """Locate the 68 landmarks.

        Returns:
            (68, 2) float64 in pixels of the picture.
        """
        quad = ffhq_quad(*alignment_points(landmarks5_px))
        north_west, south_west, _, north_east = quad.corners_px
        across = north_east - north_west
        shares = (crop_square(1).centre_px + 0.5)[:, None]
        centre_px = north_west + shares[0] * across + shares[1] * (south_west - north_west)
        angle = float(np.arctan2(across[1], across[0]))
        square = Square(centre_px, crop_square(1).side_px * quad.size_px, angle)
        mesh, _ = self._mesh.locate(picture, square)
        return mesh.points_px[list(MESH_INDICES)]


class FivePoints:
    """The backend without a model: only the five landmarks of the detector are used."""

    revision = "detector"

    def setup(self, weights_dir: str | None) -> None:
        """Do nothing: this backend needs no model."""

    def locate(self, picture: np.ndarray, landmarks5_px: np.ndarray) -> None:
        """Return None: this backend has no 68 landmarks."""
        return None


@functools.cache
def _load_predictor(path: Path) -> Any:
    """The shape predictor of a file. Loading takes a second, and a command can need it twice."""
    import dlib

    return dlib.shape_predictor(str(path))


LANDMARKERS: dict[str, type[Dlib68] | type[MediaPipe68] | type[FivePoints]] = {
    "dlib": Dlib68,
    "mediapipe": MediaPipe68,
    "retinaface5": FivePoints,
}


def make_landmarker(name: str) -> Landmarker:
    """Create a landmark backend by name. Call its `setup` before use.

    Raises:
        UserError: If the name is unknown.
    """
    if name not in LANDMARKERS:
        raise UserError(unknown_name("landmarks", name, LANDMARKERS))
    return LANDMARKERS[name]()


def predictor_square(landmarks5_px: np.ndarray) -> np.ndarray:
    """Compute the square that dlib's shape predictor needs around a face.

    Its side is 2.42 times the larger of the distances from eye to eye and from the eyes to the
    mouth, and it is centred on the mean of the five landmarks.

    Args:
        landmarks5_px: (5, 2) landmarks of the detector.

    Returns:
        (4,) pixel edges left, top, right, bottom.
    """
    eyes = landmarks5_px[:2].mean(0)
    mouth = landmarks5_px[3:].mean(0)
    eye_to_eye = float(np.linalg.norm(landmarks5_px[1] - landmarks5_px[0]))
    eyes_to_mouth = float(np.linalg.norm(mouth - eyes))
    side = 2.42 * max(eye_to_eye, eyes_to_mouth)
    centre = landmarks5_px.mean(0)
    return np.concatenate([centre - side / 2, centre + side / 2])


def alignment_points(landmarks: np.ndarray) -> np.ndarray:
    """Extract the four points that FFHQ alignment uses, the arguments of `ffhq_quad`.

    Args:
        landmarks: (68, 2) dlib landmarks or (5, 2) detector landmarks.

    Returns:
        (4, 2): left eye centre, right eye centre, left and right mouth corner.
    """
    if len(landmarks) == 5:
        return landmarks[[0, 1, 3, 4]]
    left_eye = landmarks[LEFT_EYE].mean(0)
    right_eye = landmarks[RIGHT_EYE].mean(0)
    return np.stack([left_eye, right_eye, *landmarks[list(MOUTH_CORNERS)]])


def to_five_points(landmarks68: np.ndarray) -> np.ndarray:
    """Reduce dlib's landmarks to the five points of a detector.

    Args:
        landmarks68: (68, 2) dlib landmarks.

    Returns:
        (5, 2): left eye centre, right eye centre, nose tip, left and right mouth corner.
    """
    left_eye, right_eye, *mouth_corners = alignment_points(landmarks68)
    return np.stack([left_eye, right_eye, landmarks68[NOSE_TIP], *mouth_corners])
