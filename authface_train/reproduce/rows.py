"""The rows of Table 2 at small scale, and what is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """A line of the paper's Table 2. base: what the restorer stands on; weight: of the facial loss over time."""

    name: str
    base: Literal["generic", "prior"]
    weight: Literal["off", "constant", "constant-matched", "time-aware"]
    words: str


ROWS = {
    row.name: row
    for row in (
        Row("a", "generic", "off", "generic prior, no facial loss"),
        Row("b", "prior", "off", "face prior, no facial loss"),
        Row("c", "prior", "constant", "face prior, constant weight"),
        Row("c'", "prior", "constant-matched", "face prior, constant weight of the same pull"),
        Row("d", "prior", "time-aware", "face prior, time-aware weight"),
    )
}
REGRESSION = "regression"

# name -> (heading, whether more is better)
METRICS = {
    "psnr": ("PSNR dB", True),
    "ssim": ("SSIM", True),
    "ms_ssim": ("MS-SSIM", True),
    "vsi": ("VSI", True),
    "psnr_regions": ("PSNR dB, eyes and mouth", True),
    "detail_error": ("detail error, eyes and mouth", False),
    "descriptor": ("descriptor distance", False),
}
