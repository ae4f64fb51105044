"""Full-reference metrics by pyiqa's names, each of one picture against its own reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

# Their windows and scales are meant for pictures of about this side: smaller ones are enlarged first, both alike.
LARGE = {"ms_ssim": 256, "vsi": 256}


class Scores:
    """Metrics that need no weights: psnr, ssim, ms_ssim, vsi, gmsd and others."""

    def __init__(self, names: Sequence[str]):
        import pyiqa

        self._metrics: dict[str, Any] = {name: pyiqa.create_metric(name, device=torch.device("cpu")) for name in names}

    def of(self, made: np.ndarray, reference: np.ndarray) -> dict[str, float]:
        """Value by name of one picture (H, W, 3) uint8."""
        pair = [torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255 for picture in (made, reference)]
        values = {}
        with torch.no_grad():
            for name, metric in self._metrics.items():
                values[name] = float(metric(*(_at_least(picture, LARGE.get(name, 0)) for picture in pair)))
        return values


def _at_least(picture: torch.Tensor, side_px: int) -> torch.Tensor:
    if min(picture.shape[2:]) >= side_px:
        return picture
    return torch.nn.functional.interpolate(picture, size=(side_px, side_px), mode="bicubic", antialias=True).clamp(0, 1)
