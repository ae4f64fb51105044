"""Measures how certain a restored face is: which parts follow from the input, which are invented.

Two kinds of measurements are made: where faces restored from several seeds disagree, and how well
the restored face is consistent with the degraded one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from authface_data.faces.descriptor import FaceDescriptor

BLUR_SIGMAS_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Candidate blurs of a 512 px face; the one that explains the degraded face best is used."""
FULL_SCALE = 40.0
"""Disagreement, in luma levels of 0 to 255, that is drawn with the brightest colour."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Uncertainty:
    """How certain a restored face is.

    Attributes:
        disagreement: (height, width) float32, standard deviation of luma over the seeds, 0 to 255.
        consistency_db: PSNR in dB between the degraded face and the first restored face under the
            best matching blur.
        identity_drift: Distance between the 128-d descriptors of the first restored face and of the
            degraded one, or None if a face is not found. Below 0.6 they show the same person.
        identity_spread: Mean descriptor distance between the seeds, or None if fewer than two faces
            are found.
    """

    disagreement: np.ndarray
    consistency_db: float
    identity_drift: float | None
    identity_spread: float | None

    def as_row(self) -> dict[str, float | None]:
        """Columns of the record: the mean disagreement and the other measurements."""
        return {
            "disagreement": float(self.disagreement.mean()),
            "consistency_db": self.consistency_db,
            "identity_drift": self.identity_drift,
            "identity_spread": self.identity_spread,
        }


def measure_uncertainty(
    degraded: np.ndarray, restored: Sequence[np.ndarray], descriptor: FaceDescriptor
) -> Uncertainty:
    """Measure the uncertainty of one face.

    Args:
        degraded: (height, width, 3) uint8 RGB.
        restored: Pictures of the same shape, restored from at least two seeds.
        descriptor: Describes the identity of faces; `setup` has been called.
    """
    lumas = np.stack([picture.astype(np.float32) @ LUMA for picture in restored])
    degraded_descriptor = descriptor.describe(degraded)
    descriptors = [descriptor.describe(picture) for picture in restored]

    identity_drift = None
    if degraded_descriptor is not None and descriptors[0] is not None:
        identity_drift = float(np.linalg.norm(descriptors[0] - degraded_descriptor))

    detected = [known for known in descriptors if known is not None]
    distances = []
    for index, second in enumerate(detected):
        distances += [np.linalg.norm(second - first) for first in detected[:index]]
    identity_spread = float(np.mean(distances)) if distances else None

    return Uncertainty(
        disagreement=lumas.std(axis=0),
        consistency_db=consistency_db(restored[0], degraded),
        identity_drift=identity_drift,
        identity_spread=identity_spread,
    )


def consistency_db(restored: np.ndarray, degraded: np.ndarray) -> float:
    """PSNR between the degraded face and the restored face under the best matching blur.

    The noise of the degraded face is not removed, so it lowers the value.

    Args:
        restored: (height, width, 3) uint8 RGB.
        degraded: The degraded face, same shape.

    Returns:
        PSNR in dB.
    """
    scale = degraded.shape[0] / 512
    restored_float = restored.astype(np.float32)
    degraded_float = degraded.astype(np.float32)
    errors = []
    for sigma_px in BLUR_SIGMAS_PX:
        blurred = restored_float
        if sigma_px:
            blurred = cv2.GaussianBlur(restored_float, (0, 0), sigma_px * scale)
        errors.append(float(np.square(blurred - degraded_float).mean()))
    return float(10 * np.log10(255**2 / max(min(errors), 1e-9)))


def draw_uncertainty(
    degraded: np.ndarray, restored: np.ndarray, disagreement: np.ndarray
) -> Image.Image:
    """Draw the degraded face, the restored face and the disagreement map side by side.

    Args:
        degraded: (height, width, 3) uint8 RGB.
        restored: The restored face, same shape.
        disagreement: (height, width) in luma levels; bright in the map where the seeds disagree.

    Returns:
        A picture three times as wide as the face.
    """
    from matplotlib import colormaps

    heat = colormaps["inferno"](np.clip(disagreement / FULL_SCALE, 0, 1))[..., :3]
    heat_map = np.rint(heat * 255).astype(np.uint8)
    return Image.fromarray(np.concatenate([degraded, restored, heat_map], axis=1))
