"""The paper's test sets, and the row of its Table 1 that is AuthFace's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SetName = Literal["celeba-test", "lfw-test", "webphoto-test", "wider-test"]


@dataclass(frozen=True)
class TestSet:
    """paper: AuthFace's column of Table 1, by metric; has_reference: whether clean faces belong to it."""

    words: str
    has_reference: bool
    paper: dict[str, float]


SETS: dict[SetName, TestSet] = {
    "celeba-test": TestSet(
        "CelebA-Test", True,
        {"psnr": 25.57, "ssim": 0.6768, "lpips": 0.2143, "maniqa": 0.6624, "musiq": 75.76, "fid": 50.93, "clipiqa": 0.7065},
    ),
    "lfw-test": TestSet("LFW-Test", False, {"maniqa": 0.6431, "musiq": 75.87, "fid": 45.29, "clipiqa": 0.7350}),
    "webphoto-test": TestSet("WebPhoto-Test", False, {"maniqa": 0.5860, "musiq": 74.11, "fid": 90.04, "clipiqa": 0.6964}),
    "wider-test": TestSet("WIDER-Test", False, {"maniqa": 0.5941, "musiq": 74.59, "fid": 36.10, "clipiqa": 0.7306}),
}  # fmt: skip
