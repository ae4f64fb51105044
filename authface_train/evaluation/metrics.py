"""Metrics of restored pictures: image quality, fidelity, and identity of the face.

Names are those of pyiqa. PSNR and SSIM are computed by scikit-image: SSIM has many definitions, and
the script that the paper's authors released uses scikit-image's default (7 x 7 window, on RGB).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from authface_data.faces.descriptor import DescribedFace, FaceDescriptor
from authface_data.faces.landmarks import alignment_points
from authface_data.quality import iqa
from authface_data.quality.hps import HpsScorer
from manifests.support.errors import MissingResourceError, UserError

if TYPE_CHECKING:
    import torch

Kind = Literal["reference", "picture", "set", "face", "prompt"]


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        heading: Column heading in tables.
        higher_is_better: Whether a higher value is better.
        kind: What the metric needs. `picture`: the restored picture; `reference`: also the clean
            picture; `face`: a face in both; `set`: all pictures, for one value per method;
            `prompt`: the picture and the prompt that it was generated from.
    """

    heading: str
    higher_is_better: bool
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
"""The metrics of Table 1 in its order, and two of the face."""

HPSV2 = "hpsv2"
PROMPT_METRICS = {HPSV2: Metric("HPSv2", True, "prompt")}
"""Metrics of generated pictures, as in Table 3."""

EQUAL_DB = 100.0
"""Upper limit of PSNR in dB, reached by identical pictures, so that the mean stays finite."""
SSIM_WINDOW_PX = 7
MIN_SIDE_PX = {"ms_ssim": 256, "vsi": 256}
"""Metrics whose windows and scales assume at least this side; smaller pictures are enlarged."""


def get_metric(name: str) -> Metric:
    """Look up a metric of `METRICS`, `PROMPT_METRICS` or pyiqa.

    Raises:
        UserError: If the name is unknown.
    """
    if name in METRICS:
        return METRICS[name]
    if name in PROMPT_METRICS:
        return PROMPT_METRICS[name]
    import pyiqa
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    kinds: dict[str, Kind] = {"NR": "picture", "FR": "reference"}
    for mode, kind in kinds.items():
        if name in pyiqa.list_models(metric_mode=mode):
            higher_is_better = not DEFAULT_CONFIGS[name].get("lower_better", False)
            return Metric(name, higher_is_better, kind)
    raise UserError(
        f"unknown metric {name!r}; choose from: {', '.join([*METRICS, *PROMPT_METRICS])}, or any "
        "metric of pyiqa"
    )


def select_metrics(
    requested: Sequence[str] | None,
    *,
    has_reference: bool,
    has_fid_reference: bool,
    has_prompts: bool = False,
) -> list[str]:
    """Choose the metrics that can be measured.

    Args:
        requested: Names from the command line. None selects all of `METRICS` that do not need a
            missing reference.
        has_reference: Whether clean pictures are given.
        has_fid_reference: Whether pictures for FID are given.
        has_prompts: Whether prompts of the pictures are given.

    Raises:
        UserError: If a requested metric is unknown or needs a missing reference.
    """
    names = list(METRICS) if requested is None else list(requested)
    need_reference = [name for name in names if get_metric(name).kind in ("reference", "face")]
    if need_reference and not has_reference:
        if requested is not None:
            raise UserError(f"{need_reference[0]} needs clean pictures; add --reference DIR")
        names = [name for name in names if name not in need_reference]
    need_prompts = [name for name in names if get_metric(name).kind == "prompt"]
    if need_prompts and not has_prompts:
        raise UserError(
            f"{need_prompts[0]} needs the prompts of the pictures; add --prompts FILE.csv with "
            "the columns file and caption"
        )
    if "fid" in names and not has_fid_reference:
        if requested is not None:
            raise UserError("fid needs a set of pictures to compare with; add --fid-reference DIR")
        names.remove("fid")
    return names


class ImageMetrics:
    """Measures metrics of single pictures.

    Args:
        names: Names of metrics. Those of kind `set` are ignored.
        weights_dir: Folder of downloaded weights.
        device: Device of the networks, such as "cpu" or "cuda".

    Attributes:
        metrics: The metrics that are measured, by name.
        missing: Metrics whose weights are missing, with the instruction how to get them.

    Raises:
        UserError: If a name is unknown.
    """

    def __init__(self, names: Sequence[str], weights_dir: str | None, device: str) -> None:
        self.device = device
        self.metrics: dict[str, Metric] = {}
        self.missing: dict[str, str] = {}
        self._networks: dict[str, torch.nn.Module] = {}
        self._descriptor: FaceDescriptor | None = None
        self._hps: HpsScorer | None = None
        for name in names:
            metric = get_metric(name)
            if metric.kind == "set":
                continue
            try:
                if metric.kind == "prompt":
                    self._hps = HpsScorer(weights_dir, device)
                elif metric.kind == "face" and self._descriptor is None:
                    self._descriptor = load_descriptor(weights_dir)
                elif metric.kind != "face" and name not in ("psnr", "ssim"):
                    self._networks[name] = iqa.create_metric(name, device, weights_dir)
            except MissingResourceError as error:
                self.missing[name] = str(error)
            else:
                self.metrics[name] = metric

    def measure(
        self, picture: np.ndarray, reference: np.ndarray | None, prompt: str | None = None
    ) -> dict[str, float | None]:
        """Measure one picture.

        Args:
            picture: (height, width, 3) uint8 RGB.
            reference: The clean picture, or None.
            prompt: The prompt that it was generated from, or None.

        Returns:
            Metric to value. The value is None if the metric does not apply: without a reference of
            the same size, without a face, without a prompt, or if the picture is too small.
        """
        if reference is not None:
            is_too_small = min(picture.shape[:2]) < SSIM_WINDOW_PX
            if reference.shape != picture.shape or is_too_small:
                reference = None

        values: dict[str, float | None] = {}
        for name, metric in self.metrics.items():
            values[name] = None
            # Windows and networks raise one of these if the picture is too small for them.
            with contextlib.suppress(RuntimeError, AssertionError, ValueError):
                if metric.kind == "picture":
                    values[name] = self._measure_with_pyiqa(name, picture)
                elif metric.kind == "prompt" and prompt is not None and self._hps is not None:
                    values[name] = self._hps.score(picture, prompt)
                elif metric.kind == "reference" and reference is not None:
                    values[name] = self._measure_against(name, picture, reference)

        if self._descriptor is not None and reference is not None:
            face_values = _measure_face(self._descriptor, picture, reference)
            values |= {name: face_values[name] for name in face_values if name in self.metrics}
        return values

    def _measure_against(self, name: str, picture: np.ndarray, reference: np.ndarray) -> float:
        """A full-reference metric of two pictures of the same shape."""
        if name == "psnr":
            from skimage.metrics import peak_signal_noise_ratio

            with np.errstate(divide="ignore"):
                psnr = float(peak_signal_noise_ratio(reference, picture, data_range=255))
            return min(psnr, EQUAL_DB)
        if name == "ssim":
            from skimage.metrics import structural_similarity

            return float(structural_similarity(reference, picture, channel_axis=2, data_range=255))
        return self._measure_with_pyiqa(name, picture, reference)

    def _measure_with_pyiqa(self, name: str, *pictures: np.ndarray) -> float:
        """A metric of pyiqa. Metrics that take random crops get a fixed seed."""
        import torch

        tensors = [
            torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
            for picture in pictures
        ]
        min_side_px = MIN_SIDE_PX.get(name, 0)
        if min(tensors[0].shape[2:]) < min_side_px:
            size = (min_side_px, min_side_px)
            tensors = [
                torch.nn.functional.interpolate(tensor, size, mode="bicubic", antialias=True)
                for tensor in tensors
            ]
            tensors = [tensor.clamp(0, 1) for tensor in tensors]
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(iqa.SEED)
            np.random.seed(iqa.SEED)
            inputs = [tensor.to(self.device) for tensor in tensors]
            return float(self._networks[name](*inputs))


def landmark_error(restored: DescribedFace, clean: DescribedFace) -> float:
    """Normalised mean error of the 68 landmarks.

    Args:
        restored: The restored face.
        clean: The clean face.

    Returns:
        Mean distance of the landmarks, in per cent of the distance between the clean face's eyes.
    """
    left_eye, right_eye, *_ = alignment_points(clean.landmarks68_px)
    distances = np.linalg.norm(restored.landmarks68_px - clean.landmarks68_px, axis=1)
    return float(100 * distances.mean() / np.linalg.norm(right_eye - left_eye))


def load_descriptor(weights_dir: str | None) -> FaceDescriptor:
    """Load the network that describes faces.

    Raises:
        MissingResourceError: If its weights are missing and cannot be downloaded.
    """
    descriptor = FaceDescriptor()
    descriptor.setup(weights_dir)
    return descriptor


def _measure_face(
    descriptor: FaceDescriptor, picture: np.ndarray, reference: np.ndarray
) -> dict[str, float | None]:
    """Metrics of kind `face`; None if either picture shows no face."""
    restored = descriptor.locate_and_describe(picture)
    clean = descriptor.locate_and_describe(reference)
    if restored is None or clean is None:
        return {"identity": None, "landmarks": None}
    return {
        "identity": float(np.linalg.norm(restored.descriptor - clean.descriptor)),
        "landmarks": landmark_error(restored, clean),
    }
