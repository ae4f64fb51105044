"""Scores of a restored face against the clean one in the small experiments."""

from __future__ import annotations

import numpy as np

from authface_train.evaluation.metrics import ImageMetrics
from authface_train.reproduce.feature_distance import FeatureDistance

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])


class ImageScores:
    """Measures whole images, and eyes and mouth.

    Whole images: PSNR, SSIM, MS-SSIM, the distances of deep features and of face descriptors.
    """

    def __init__(self) -> None:
        self._metrics = ImageMetrics(["psnr", "ssim", "ms_ssim", "identity"], None, "cpu")
        self._features = FeatureDistance()

    def measure(
        self, restored: np.ndarray, clean: np.ndarray, boxes_px: np.ndarray
    ) -> dict[str, float | None]:
        """Compare a restored face with the clean one.

        Args:
            restored: (height, width, 3) uint8.
            clean: (height, width, 3) uint8.
            boxes_px: (n, 4) edges x0, y0, x1, y1 of the visible eyes and mouth; n may be 0.

        Returns:
            Values by name. `descriptor` is the distance of the face descriptors, None if no face is
            found in one of the images. With boxes also `psnr_regions`, in dB, and `detail_error`,
            |log2| of the mean luma gradient in the boxes relative to the clean face: 0 for equal
            detail, 1 for half or twice as much.
        """
        in_regions = np.zeros(restored.shape[:2], bool)
        for x0, y0, x1, y1 in boxes_px.round().astype(int):
            in_regions[max(y0, 0) : y1, max(x0, 0) : x1] = True

        values = self._metrics.measure(restored, clean)
        values["descriptor"] = values.pop("identity")
        values["features"] = self._features.measure(restored, clean)
        if in_regions.any():
            error = np.square(restored[in_regions].astype(float) - clean[in_regions]).mean()
            values["psnr_regions"] = float(10 * np.log10(255**2 / max(error, 1e-9)))
            ratio = _mean_gradient(restored, in_regions) / _mean_gradient(clean, in_regions)
            values["detail_error"] = float(abs(np.log2(ratio)))
        return values


def _mean_gradient(image: np.ndarray, mask: np.ndarray) -> float:
    down, right = np.gradient(image @ LUMA_WEIGHTS)
    return float(np.hypot(down, right)[mask].mean()) + 1e-3
