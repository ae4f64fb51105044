"""The test sets of the paper, and AuthFace's results in its Table 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SetName = Literal["celeba-test", "lfw-test", "webphoto-test", "wider-test"]


@dataclass(frozen=True)
class TestSet:
    """A test set.

    Attributes:
        title: Name of the set in the paper.
        has_reference: Whether clean pictures belong to the set.
        paper: Metric to the value that Table 1 prints for AuthFace.
    """

    title: str
    has_reference: bool
    paper: dict[str, float]


TEST_SETS: dict[SetName, TestSet] = {
    "celeba-test": TestSet(
        title="CelebA-Test",
        has_reference=True,
        paper={
            "psnr": 25.57,
            "ssim": 0.6768,
            "lpips": 0.2143,
            "maniqa": 0.6624,
            "musiq": 75.76,
            "fid": 50.93,
            "clipiqa": 0.7065,
        },
    ),
    "lfw-test": TestSet(
        title="LFW-Test",
        has_reference=False,
        paper={"maniqa": 0.6431, "musiq": 75.87, "fid": 45.29, "clipiqa": 0.7350},
    ),
    "webphoto-test": TestSet(
        title="WebPhoto-Test",
        has_reference=False,
        paper={"maniqa": 0.5860, "musiq": 74.11, "fid": 90.04, "clipiqa": 0.6964},
    ),
    "wider-test": TestSet(
        title="WIDER-Test",
        has_reference=False,
        paper={"maniqa": 0.5941, "musiq": 74.59, "fid": 36.10, "clipiqa": 0.7306},
    ),
}
