"""Face identity: dlib's 128-d descriptor, whose distance is small for pictures of one person."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from authface_data.faces.detectors.retinaface_mobile import RetinaFaceMobile
from authface_data.faces.landmarks import Dlib68
from authface_data.weights import DLIB_DESCRIPTOR, find_weights
from manifests.support.errors import MissingResourceError
from manifests.support.extras import describe_missing

SAME_PERSON_DISTANCE = 0.6
"""dlib's threshold: descriptors of one person are closer than this (Euclidean; 99.4 % on LFW)."""

MIN_SCORE = 0.5
"""Lowest detector score of a face."""

MIN_SIDE_PX = 256
"""Pictures with a shorter side below this are enlarged before detection."""


@dataclass(frozen=True)
class DescribedFace:
    """A face with its descriptor and landmarks, in pixels of the picture.

    Attributes:
        descriptor: (128,) float64.
        landmarks68_px: (68, 2) dlib landmarks.
        landmarks5_px: (5, 2) landmarks of the detector.
    """

    descriptor: np.ndarray
    landmarks68_px: np.ndarray
    landmarks5_px: np.ndarray


class FaceDescriptor:
    """Detects the face of an aligned crop and computes its descriptor."""

    revision = DLIB_DESCRIPTOR.sha256

    def setup(self, weights_dir: str | None) -> None:
        """Load the models.

        Raises:
            MissingResourceError: If dlib is not installed or weights are missing.
        """
        try:
            import dlib
        except ImportError as error:
            raise MissingResourceError(describe_missing(["data"], "a face descriptor")) from error
        self._dlib = dlib
        self._detector = RetinaFaceMobile()
        self._detector.setup("cpu", weights_dir)
        self._landmarker = Dlib68()
        self._landmarker.setup(weights_dir)
        self._network = _load_network(find_weights(DLIB_DESCRIPTOR, weights_dir))

    def describe(self, picture: np.ndarray) -> np.ndarray | None:
        """Compute the descriptor of the face with the highest score.

        Args:
            picture: (height, width, 3) uint8 sRGB.

        Returns:
            (128,) float64, or None if no face is detected.
        """
        face = self.locate_and_describe(picture)
        return None if face is None else face.descriptor

    def locate_and_describe(self, picture: np.ndarray) -> DescribedFace | None:
        """Compute the descriptor and the landmarks of the face with the highest score.

        Args:
            picture: (height, width, 3) uint8 sRGB. Small pictures are enlarged internally.

        Returns:
            The face, or None if no face is detected.
        """
        picture, scale = _enlarge_small(picture)
        faces = self._detector.detect([picture], MIN_SCORE)[0]
        if not faces:
            return None

        face = faces[0]
        landmarks68_px = self._landmarker.locate(picture, face.landmarks5_px)
        descriptor = self._compute_descriptor(picture, face.box_px, landmarks68_px)
        # Landmarks are pixel centres, which lie half a pixel from the pixel edges that scale.
        return DescribedFace(
            descriptor=descriptor,
            landmarks68_px=(landmarks68_px + 0.5) / scale - 0.5,
            landmarks5_px=(face.landmarks5_px + 0.5) / scale - 0.5,
        )

    def _compute_descriptor(
        self, picture: np.ndarray, box_px: np.ndarray, landmarks68_px: np.ndarray
    ) -> np.ndarray:
        rectangle = self._dlib.rectangle(*(int(edge) for edge in box_px))
        points = [self._dlib.point(*map(int, point)) for point in landmarks68_px.round()]
        shape = self._dlib.full_object_detection(rectangle, points)
        contiguous = np.ascontiguousarray(picture)
        return np.array(self._network.compute_face_descriptor(contiguous, shape))


@functools.cache
def _load_network(path: Path) -> Any:
    """The descriptor network of a file, loaded once in a process."""
    import dlib

    return dlib.face_recognition_model_v1(str(path))


def _enlarge_small(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """Enlarge a picture to a shorter side of MIN_SIDE_PX; return it with the scale factor."""
    height, width = picture.shape[:2]
    scale = max(MIN_SIDE_PX / min(height, width), 1.0)
    if scale <= 1:
        return picture, scale

    from PIL import Image

    size_px = (round(width * scale), round(height * scale))
    image = Image.fromarray(picture).resize(size_px, Image.Resampling.BICUBIC)
    return np.asarray(image), scale
