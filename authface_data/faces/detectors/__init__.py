"""Face detectors by name. Each detector is a module with an entry in `DETECTORS`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import numpy as np

from manifests.support.errors import UserError
from manifests.support.text import unknown_name

DETECTORS = {
    "retinaface": "authface_data.faces.detectors.retinaface:RetinaFaceResNet50",
    "retinaface-mobile": "authface_data.faces.detectors.retinaface_mobile:RetinaFaceMobile",
}
"""Name -> module and class of the detector, imported on use."""


@dataclass(frozen=True)
class Detection:
    """A detected face, in pixels of the picture that was searched.

    Attributes:
        box_px: (4,) float64 pixel edges left, top, right, bottom.
        score: Confidence, 0 to 1.
        landmarks5_px: (5, 2) float64 pixel centres: left eye, right eye, nose, left and right mouth
            corner. Left and right are as seen in the image.
    """

    box_px: np.ndarray
    score: float
    landmarks5_px: np.ndarray


class Detector(Protocol):
    """Detects faces in pictures.

    Attributes:
        revision: Identifies the weights; part of the fingerprint of the faces.
        uses_gpu: Whether it runs on a CUDA device if one is available.
        batch_size: Number of pictures that `detect` handles efficiently at once.
    """

    revision: str
    uses_gpu: bool
    batch_size: int

    def setup(self, device: str, weights_dir: str | None) -> None:
        """Load the model.

        Args:
            device: A torch device, such as "cpu" or "cuda:0".
            weights_dir: Folder of the setting `weights_dir`, if any.

        Raises:
            MissingResourceError: If the weights are missing.
        """
        ...

    def detect(self, pictures: Sequence[np.ndarray], min_score: float) -> list[list[Detection]]:
        """Detect faces. The result of a picture does not depend on the other pictures.

        Args:
            pictures: (height, width, 3) uint8 sRGB each; their sizes may differ.
            min_score: Lowest score of a face, 0 to 1.

        Returns:
            The faces of each picture, highest score first.
        """
        ...


def make_detector(name: str) -> Detector:
    """Create a detector by name. Call its `setup` before use.

    Raises:
        UserError: If the name is unknown.
    """
    if name not in DETECTORS:
        raise UserError(unknown_name("detector", name, DETECTORS))
    module_name, class_name = DETECTORS[name].split(":")
    return getattr(import_module(module_name), class_name)()
