"""Who a face is: dlib's 128-d descriptor, in which pictures of one person lie near each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from authface_data.faces.detectors.retinaface_mobile import RetinaFaceMobile
from authface_data.faces.landmarks import Dlib68
from authface_data.weights import DLIB_DESCRIPTOR, find
from manifests.support.errors import MissingResourceError

# dlib's own figure: below it two pictures are of one person (99.4 % on LFW).
SAME_PERSON = 0.6
LEAST_SCORE, LEAST_SIDE_PX = 0.5, 256


@dataclass(frozen=True)
class Seen:
    """descriptor: (128,); landmarks_px: (68, 2); five_px: (5, 2), the detector's own. In pixels of the picture."""

    descriptor: np.ndarray
    landmarks_px: np.ndarray
    five_px: np.ndarray


class Descriptor:
    """Detects the face of an aligned crop and describes it."""

    revision = DLIB_DESCRIPTOR.sha256

    def setup(self, weights_dir: str | None) -> None:
        """Raises MissingResourceError where weights cannot be had."""
        try:
            import dlib
        except ImportError as error:
            raise MissingResourceError(
                "face descriptors need dlib: pip install 'authface[data]'"
            ) from error
        self._dlib = dlib
        self._detector, self._landmarks = RetinaFaceMobile(), Dlib68()
        self._detector.setup("cpu", weights_dir)
        self._landmarks.setup(weights_dir)
        self._net = dlib.face_recognition_model_v1(str(find(DLIB_DESCRIPTOR, weights_dir)))

    def describe(self, picture: np.ndarray) -> np.ndarray | None:
        """(128,) of the best face in a picture (H, W, 3) uint8; None where there is none. Small pictures are enlarged."""
        seen = self.look(picture)
        return None if seen is None else seen.descriptor

    def look(self, picture: np.ndarray) -> Seen | None:
        """The best face in a picture (H, W, 3) uint8; None where there is none. Small pictures are enlarged to be looked at."""
        height, width = picture.shape[:2]
        scale = max(LEAST_SIDE_PX / min(height, width), 1.0)
        if scale > 1:
            from PIL import Image

            size = (round(width * scale), round(height * scale))
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
        found = self._detector.detect([picture], LEAST_SCORE)[0]
        if not found:
            return None
        landmarks = self._landmarks.locate(picture, found[0].landmarks5_px)
        box = self._dlib.rectangle(*(int(edge) for edge in found[0].box_px))
        points = [self._dlib.point(*map(int, point)) for point in landmarks.round()]
        shape = self._dlib.full_object_detection(box, points)
        described = np.array(
            self._net.compute_face_descriptor(np.ascontiguousarray(picture), shape)
        )
        # Points are pixel centres: half a pixel is added before scaling and taken off after.
        own, five = ((one + 0.5) / scale - 0.5 for one in (landmarks, found[0].landmarks5_px))
        return Seen(described, own, five)
