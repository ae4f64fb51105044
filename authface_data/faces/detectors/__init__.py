"""Face detectors, by name: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import numpy as np

from manifests.support.errors import UserError

DETECTORS = {
    "retinaface": "authface_data.faces.detectors.retinaface:RetinaFaceResNet50",
    "retinaface-mobile": "authface_data.faces.detectors.retinaface_mobile:RetinaFaceMobile",
}


@dataclass(frozen=True)
class Detection:
    """box_px: (4,) float [x0, y0, x1, y1]; score: 0..1; landmarks5_px: (5, 2) float, left eye (as seen in the image), right
    eye, nose, left and right mouth corner. All in pixels of the picture that was looked at."""

    box_px: np.ndarray
    score: float
    landmarks5_px: np.ndarray


class Detector(Protocol):
    """revision: names the weights; uses_gpu: whether it takes one; batch_size: how many pictures it is best given at once.

    `setup` raises MissingResourceError where the weights are not there.
    """

    revision: str
    uses_gpu: bool
    batch_size: int

    def setup(self, device: str, weights_dir: str | None) -> None: ...

    def detect(self, pictures: Sequence[np.ndarray], min_score: float) -> list[list[Detection]]:
        """Faces in each of some pictures, (H, W, 3) uint8 sRGB, best first; a picture's faces are its own affair."""
        ...


def make_detector(name: str) -> Detector:
    """The detector of that name, not yet set up. Raises UserError for an unknown one."""
    if name not in DETECTORS:
        raise UserError(f"no detector {name!r}: there are {', '.join(DETECTORS)}")
    module, kind = DETECTORS[name].split(":")
    return getattr(import_module(module), kind)()
