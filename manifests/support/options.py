"""Values that options of several commands accept.

As types of the options they appear in the help and are completed by the shell. The commands import
them without the modules that define what the names mean; a test compares both.
"""

from __future__ import annotations

from typing import Literal

WorkspacePreset = Literal["paper", "embedded"]
DetectorName = Literal["retinaface", "retinaface-mobile"]
LandmarksName = Literal["dlib", "mediapipe", "retinaface5"]
CaptionerName = Literal["llava", "server", "measured"]
TrainingSource = Literal["portraits", "ffhq", "workspace"]
TrainPreset = Literal["paper", "tiny", "1x24gb", "1x80gb", "4x48gb", "8x80gb"]
DegradationPreset = Literal[
    "gfpgan", "bfrffusion", "codeformer-large", "codeformer-small", "diffbir", "high-iso"
]
MAX_SEED = 2**63 - 1
"""Largest seed: the records store seeds as signed integers of 64 bits."""


def complete_metrics(incomplete: str) -> list[str]:
    """Shell completion of a comma-separated list of pyiqa's metrics without a reference.

    Args:
        incomplete: What has been typed, such as "musiq,ni".

    Returns:
        What has been typed with its last name completed, in every possible way.
    """
    from manifests.names import iqa_metric_names

    return _complete_last(incomplete, iqa_metric_names())


def complete_evaluation_metrics(incomplete: str) -> list[str]:
    """Shell completion of a comma-separated list of the metrics of `authface evaluate`.

    Args:
        incomplete: What has been typed, such as "psnr,lp".

    Returns:
        What has been typed with its last name completed, in every possible way.
    """
    from manifests.names import iqa_metric_names

    return _complete_last(incomplete, (*EVALUATION_METRICS, "hpsv2", *iqa_metric_names()))


EVALUATION_METRICS = (
    "psnr",
    "ssim",
    "lpips",
    "maniqa",
    "musiq",
    "fid",
    "clipiqa",
    "identity",
    "landmarks",
)
"""Metrics that `authface evaluate` measures by default."""


def _complete_last(incomplete: str, names: tuple[str, ...]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in dict.fromkeys(names) if name.startswith(last)]
