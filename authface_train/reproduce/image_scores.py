"""What the small experiments measure of a restored face against the clean one."""

from __future__ import annotations

import numpy as np

from authface_train.evaluation.metrics import ImageMetrics


class PictureScores:
    """PSNR and SSIM, MS-SSIM and VSI by pyiqa; of the regions PSNR and detail; and the distance of 128-d descriptors."""

    def __init__(self) -> None:
        self._measures = ImageMetrics(["psnr", "ssim", "ms_ssim", "vsi", "identity"], None, "cpu")

    def of(
        self, made: np.ndarray, clean: np.ndarray, boxes_px: np.ndarray
    ) -> dict[str, float | None]:
        """Value by name. made, clean: (H, W, 3) uint8; boxes_px: (n, 4) edges of eyes and mouth, n may be 0.

        detail_error: |log2| of the mean gradient of luma under the boxes over that of the clean face: 0 is as much detail, 1 is
        half or twice. descriptor: None where the detector sees no face in one of them.
        """
        inside = np.zeros(made.shape[:2], bool)
        for x0, y0, x1, y1 in boxes_px.round().astype(int):
            inside[max(y0, 0) : y1, max(x0, 0) : x1] = True
        values = self._measures.of(made, clean)
        values["descriptor"] = values.pop("identity")
        if inside.any():
            error = np.square(made[inside].astype(float) - clean[inside]).mean()
            values["psnr_regions"] = float(10 * np.log10(255**2 / max(error, 1e-9)))
            values["detail_error"] = float(
                abs(np.log2(_detail(made, inside) / _detail(clean, inside)))
            )
        return values


def _detail(picture: np.ndarray, inside: np.ndarray) -> float:
    down, right = np.gradient(picture @ np.array([0.299, 0.587, 0.114]))
    return float(np.hypot(down, right)[inside].mean()) + 1e-3
