"""A distance of deep features that needs no download: LPIPS's formula on RetinaFace's backbone.

The features are those of the MobileNetV1 of `retinaface-mobile`, which was trained to find faces.
As in LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", Eq. 1) they are normalised per position, and squared differences are averaged over
positions and levels. LPIPS also weights the channels, fitted to human judgements; here all weights
are 1, so values cannot be compared with LPIPS.
"""

from __future__ import annotations

import numpy as np

from authface_data.faces.detectors.retinaface_features import RetinaFaceFeatures


class FeatureDistance:
    """Compares pictures by the features of a face detector."""

    def __init__(self) -> None:
        self._features = RetinaFaceFeatures()

    def measure(self, picture: np.ndarray, reference: np.ndarray) -> float:
        """The distance of two pictures.

        Args:
            picture: (height, width, 3) uint8 RGB.
            reference: The same shape.

        Returns:
            At least 0; 0 for equal pictures.
        """
        differences = [
            np.square(_normalise(first) - _normalise(second)).sum(axis=0).mean()
            for first, second in zip(
                self._features.compute(picture), self._features.compute(reference), strict=True
            )
        ]
        return float(np.mean(differences))


def _normalise(features: np.ndarray) -> np.ndarray:
    """Scale the channels of each position, (channels, height, width), to a norm of 1."""
    return np.asarray(features / (np.linalg.norm(features, axis=0) + 1e-10))
