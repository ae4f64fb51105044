"""The rows of Table 2 at small scale, and what is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """A restorer of Table 2 or 4. base: what it stands on; weight: of the facial loss over time, by Eq. 3's m and s."""

    name: str
    base: Literal["generic", "prior"]
    weight: Literal["off", "constant", "constant-matched", "time-aware"]
    words: str
    m: float = -0.5
    s: float = 1.0


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
TABLE4 = {
    row.name: row
    for row in (
        ROWS["d"],
        Row("m=0", "prior", "time-aware", "m = 0, s = 1", m=0.0),
        Row("m=0.5", "prior", "time-aware", "m = 0.5, s = 1", m=0.5),
        Row("s=0.5", "prior", "time-aware", "m = -0.5, s = 0.5", s=0.5),
    )
}
REGRESSION = "regression"


@dataclass(frozen=True)
class Ablation:
    """A table of restorers. compared: pairs of rows whose differences are told; printed: the paper's figures, in words."""

    rows: dict[str, Row]
    compared: tuple[tuple[str, str], ...]
    printed: str


ABLATIONS = {
    "table2": Ablation(
        ROWS,
        (("b", "a"), ("c", "b"), ("c'", "b"), ("d", "b"), ("d", "c'"), ("d", "c")),  # c' is ours
        "The paper's rows, on CelebA-Test (PSNR / MANIQA / MUSIQ / CLIPIQA): a 24.39 / .5781 / 69.25 / .6465; "
        "b 25.59 / .5057 / 74.42 / .7088; c 23.95 / .6449 / 73.66 / .6821; d 25.57 / .6624 / 75.76 / .7065",
    ),
    "table4": Ablation(
        TABLE4,
        (("m=0", "d"), ("m=0.5", "d"), ("s=0.5", "d")),
        "The paper chooses m = -0.5, s = 1",
    ),
}

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
