"""Metrics by pyiqa's names, each of one picture, against its own reference where the metric has one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Their windows and scales are meant for pictures of about this side: smaller ones are enlarged first, both alike.
LARGE = {"ms_ssim": 256, "vsi": 256}
NO_REFERENCE = ("musiq",)
# What a metric reads in torch's hub folder, at the names that pyiqa and torchvision look for.
WEIGHTS = {
    "lpips": ("pyiqa/LPIPS_v0.1_alex-df73285e.pth", "checkpoints/alexnet-owt-7be5be79.pth"),
    "musiq": ("pyiqa/musiq_koniq_ckpt-e95806b9.pth",),
}


def with_weights(names: Sequence[str]) -> list[str]:
    """Those of some metrics whose weights are on this machine: nothing is fetched for them."""
    hub = Path(torch.hub.get_dir())
    return [name for name in names if all((hub / file).is_file() for file in WEIGHTS[name])]


class Scores:
    """psnr, ssim, ms_ssim, vsi and others need no weights; for those that do see `with_weights`."""

    def __init__(self, names: Sequence[str]):
        import pyiqa

        self._metrics: dict[str, Any] = {name: pyiqa.create_metric(name, device=torch.device("cpu")) for name in names}

    def of(self, made: np.ndarray, reference: np.ndarray) -> dict[str, float]:
        """Value by name of one picture (H, W, 3) uint8."""
        pair = [torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255 for picture in (made, reference)]
        values = {}
        with torch.no_grad():
            for name, metric in self._metrics.items():
                large = [_at_least(picture, LARGE.get(name, 0)) for picture in pair]
                values[name] = float(metric(*(large[:1] if name in NO_REFERENCE else large)))
        return values


def _at_least(picture: torch.Tensor, side_px: int) -> torch.Tensor:
    if min(picture.shape[2:]) >= side_px:
        return picture
    return torch.nn.functional.interpolate(picture, size=(side_px, side_px), mode="bicubic", antialias=True).clamp(0, 1)
