"""Landmarks of a detected face: 68 points by dlib, or the detector's own five."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from authface_data.weights import DLIB68, find
from manifests.support.errors import UserError

# dlib's 68 points. Left and right as seen in the image.
LEFT_EYE, RIGHT_EYE, MOUTH = slice(36, 42), slice(42, 48), slice(48, 68)
MOUTH_CORNERS, NOSE_TIP = (48, 54), 30


class Landmarker(Protocol):
    revision: str

    def setup(self, weights_dir: str | None) -> None: ...

    def locate(self, picture: np.ndarray, five: np.ndarray) -> np.ndarray | None:
        """(68, 2) landmarks in the picture's pixels, given the detector's (5, 2); None where this backend has none."""
        ...


class Dlib68:
    """dlib's shape predictor, given a square derived from the five points: a raw detector box doubles its error."""

    revision = DLIB68.sha256

    def setup(self, weights_dir: str | None) -> None:
        import dlib

        self._dlib = dlib
        self._predictor = dlib.shape_predictor(str(find(DLIB68, weights_dir)))

    def locate(self, picture: np.ndarray, five: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = (round(float(edge)) for edge in predictor_square(five))
        shape = self._predictor(
            np.ascontiguousarray(picture), self._dlib.rectangle(x0, y0, x1 - 1, y1 - 1)
        )
        return np.array([(point.x, point.y) for point in shape.parts()], float)


class FivePoints:
    """The detector's own five points are all there is."""

    revision = "detector"

    def setup(self, weights_dir: str | None) -> None:
        return

    def locate(self, picture: np.ndarray, five: np.ndarray) -> None:
        return None


LANDMARKERS: dict[str, type[Dlib68] | type[FivePoints]] = {
    "dlib": Dlib68,
    "retinaface5": FivePoints,
}


def make_landmarker(name: str) -> Landmarker:
    """The landmark backend of that name, not yet set up. Raises UserError for an unknown one."""
    if name not in LANDMARKERS:
        raise UserError(f"no landmark backend {name!r}: there are {', '.join(LANDMARKERS)}")
    return LANDMARKERS[name]()


def predictor_square(five: np.ndarray) -> np.ndarray:
    """[x0, y0, x1, y1]: side 2.42 * max(eye distance, eyes to mouth), centred on the mean of the five points."""
    eyes, mouth = five[:2].mean(0), five[3:].mean(0)
    side = 2.42 * max(float(np.linalg.norm(five[1] - five[0])), float(np.linalg.norm(mouth - eyes)))
    centre = five.mean(0)
    return np.concatenate([centre - side / 2, centre + side / 2])


def eyes_and_mouth(landmarks: np.ndarray) -> np.ndarray:
    """(4, 2): left eye centre, right eye centre, left and right mouth corner, of (68, 2) or (5, 2) landmarks."""
    if len(landmarks) == 5:
        return landmarks[[0, 1, 3, 4]]
    corners = landmarks[list(MOUTH_CORNERS)]
    return np.stack([landmarks[LEFT_EYE].mean(0), landmarks[RIGHT_EYE].mean(0), *corners])


def five_of(landmarks68: np.ndarray) -> np.ndarray:
    """(5, 2) as a detector gives them, of (68, 2): eye centres, tip of the nose, mouth corners."""
    left_eye, right_eye, *mouth = eyes_and_mouth(landmarks68)
    return np.stack([left_eye, right_eye, landmarks68[NOSE_TIP], *mouth])
