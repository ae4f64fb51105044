"""What is measured of a restored picture: by pyiqa's names, PSNR and SSIM as scikit-image defines them, and of the face in it.

SSIM has many definitions. This is scikit-image's own (a window of 7 x 7, on RGB), which the paper's authors use in the script
that they released.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from authface_data.faces.descriptor import Descriptor, Seen
from authface_data.faces.landmarks import eyes_and_mouth
from authface_data.quality import iqa
from manifests.support.errors import MissingResourceError, UserError

Kind = Literal["reference", "picture", "set", "face"]


@dataclass(frozen=True)
class Metric:
    """more: whether more is better. kind: reference and face need the clean picture, set is one value for all."""

    heading: str
    more: bool
    kind: Kind


METRICS = {
    "psnr": Metric("PSNR", True, "reference"),
    "ssim": Metric("SSIM", True, "reference"),
    "lpips": Metric("LPIPS", False, "reference"),
    "maniqa": Metric("MANIQA", True, "picture"),
    "musiq": Metric("MUSIQ", True, "picture"),
    "fid": Metric("FID", False, "set"),
    "clipiqa": Metric("CLIPIQA", True, "picture"),
    "identity": Metric("ID distance", False, "face"),
    "landmarks": Metric("Landmarks %", False, "face"),
}
EQUAL_DB = 100.0  # what equal pictures count as, so that a mean is a number
LEAST_PX = 7  # a side of SSIM's window
# Their windows and scales are meant for pictures of about this side: smaller ones are enlarged first, both alike.
LARGE = {"ms_ssim": 256, "vsi": 256}
# What a metric reads in torch's hub folder, at the names that pyiqa and torchvision look for.
WEIGHTS = {
    "lpips": ("pyiqa/LPIPS_v0.1_alex-df73285e.pth", "checkpoints/alexnet-owt-7be5be79.pth"),
    "musiq": ("pyiqa/musiq_koniq_ckpt-e95806b9.pth",),
}


def with_weights(names: Sequence[str]) -> list[str]:
    """Those of some metrics whose weights are on this machine: nothing is fetched for them."""
    import torch

    hub = Path(torch.hub.get_dir())
    return [name for name in names if all((hub / file).is_file() for file in WEIGHTS[name])]


def known(name: str) -> Metric:
    """A metric of ours, or any other of pyiqa's. Raises UserError for an unknown name."""
    if name in METRICS:
        return METRICS[name]
    import pyiqa

    for mode, kind in (("NR", "picture"), ("FR", "reference")):
        if name in pyiqa.list_models(metric_mode=mode):
            from pyiqa.default_model_configs import DEFAULT_CONFIGS

            return Metric(name, not DEFAULT_CONFIGS[name].get("lower_better", False), kind)  # type: ignore[arg-type]
    raise UserError(f"no metric {name!r}: there are {', '.join(METRICS)}, and pyiqa's")


class ImageMetrics:
    """Metrics of single pictures, loaded once. missing: what to get for those whose weights are not here, by name."""

    def __init__(self, names: Sequence[str], weights_dir: str | None, device: str):
        self.metrics = {name: known(name) for name in names if known(name).kind != "set"}
        self.missing: dict[str, str] = {}
        self._loaded: dict[str, Any] = {}
        self._descriptor: Descriptor | None = None
        self.device = device
        for name, metric in self.metrics.items():
            try:
                if metric.kind == "face":
                    self._descriptor = self._descriptor or _descriptor(weights_dir)
                elif name not in ("psnr", "ssim"):
                    self._loaded[name] = iqa.create(name, device, weights_dir)
            except MissingResourceError as error:
                self.missing[name] = str(error)
        for name in self.missing:
            del self.metrics[name]

    def of(self, picture: np.ndarray, reference: np.ndarray | None) -> dict[str, float | None]:
        """Value by name of one picture (H, W, 3) uint8; None where it has none: no reference of its size, no face in one, or
        too small a picture."""
        if reference is not None and (
            reference.shape != picture.shape or min(picture.shape[:2]) < LEAST_PX
        ):
            reference = None
        values: dict[str, float | None] = {}
        for name, metric in self.metrics.items():
            values[name] = None
            with contextlib.suppress(
                RuntimeError, AssertionError, ValueError
            ):  # too small for some windows and networks
                if metric.kind == "picture":
                    values[name] = self._by_pyiqa(name, picture)
                elif metric.kind == "reference" and reference is not None:
                    values[name] = self._against(name, picture, reference)
        if self._descriptor is not None and reference is not None:
            values |= {
                name: value
                for name, value in self._of_face(picture, reference).items()
                if name in self.metrics
            }
        return values

    def _against(self, name: str, picture: np.ndarray, reference: np.ndarray) -> float:
        if name == "psnr":
            from skimage.metrics import peak_signal_noise_ratio

            with np.errstate(divide="ignore"):
                return min(
                    float(peak_signal_noise_ratio(reference, picture, data_range=255)), EQUAL_DB
                )
        if name == "ssim":
            from skimage.metrics import structural_similarity

            return float(structural_similarity(reference, picture, channel_axis=2, data_range=255))
        return self._by_pyiqa(name, picture, reference)

    def _by_pyiqa(self, name: str, *pictures: np.ndarray) -> float:
        """pyiqa takes [0, 1] and brings it to each network's own range. Random crops, if any, are from a fixed seed."""
        import torch

        batch = [
            torch.from_numpy(one.copy()).permute(2, 0, 1)[None].float() / 255 for one in pictures
        ]
        if min(batch[0].shape[2:]) < (side_px := LARGE.get(name, 0)):
            enlarge = torch.nn.functional.interpolate
            batch = [
                enlarge(one, (side_px, side_px), mode="bicubic", antialias=True).clamp(0, 1)
                for one in batch
            ]
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(iqa.SEED)
            np.random.seed(iqa.SEED)
            return float(self._loaded[name](*(one.to(self.device) for one in batch)))

    def _of_face(self, picture: np.ndarray, reference: np.ndarray) -> dict[str, float | None]:
        assert self._descriptor is not None
        made, clean = self._descriptor.look(picture), self._descriptor.look(reference)
        if made is None or clean is None:
            return {"identity": None, "landmarks": None}
        return {
            "identity": float(np.linalg.norm(made.descriptor - clean.descriptor)),
            "landmarks": landmark_error(made, clean),
        }


def landmark_error(made: Seen, clean: Seen) -> float:
    """Mean distance of the 68 landmarks, in per cent of the distance between the clean face's eyes."""
    left, right, *_ = eyes_and_mouth(clean.landmarks_px)
    distances = np.linalg.norm(made.landmarks_px - clean.landmarks_px, axis=1)
    return float(100 * distances.mean() / np.linalg.norm(right - left))


def _descriptor(weights_dir: str | None) -> Descriptor:
    made = Descriptor()
    made.setup(weights_dir)
    return made
