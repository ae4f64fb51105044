"""The rows of Tables 2 and 4, and the metrics of the small experiments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """A restorer of Table 2 or 4.

    Attributes:
        name: Name of the row, as in the paper; rows with an apostrophe are ours.
        base: Model that it is trained on. "generic" is SDXL, or at small scale the generic prior;
            "prior" is the face prior.
        weight: Weight of the facial loss over time.
        description: Description in the table.
        m: Parameter m of Eq. 3.
        s: Parameter s of Eq. 3.
        timestep_conditioning: Whether the discriminators are conditioned on the timestep.
    """

    name: str
    base: Literal["generic", "prior"]
    weight: Literal["off", "constant", "constant-matched", "time-aware"]
    description: str
    m: float = -0.5
    s: float = 1.0
    timestep_conditioning: bool = False


def _by_name(*rows: Row) -> dict[str, Row]:
    return {row.name: row for row in rows}


TABLE2_ROWS = _by_name(
    Row("a", "generic", "off", "generic prior, no facial loss"),
    Row("b", "prior", "off", "face prior, no facial loss"),
    Row("c", "prior", "constant", "face prior, constant weight"),
    Row("c'", "prior", "constant-matched", "face prior, constant weight of the same pull"),
    Row("d", "prior", "time-aware", "face prior, time-aware weight"),
    Row(
        "d'",
        "prior",
        "time-aware",
        "as d, discriminators conditioned on the timestep",
        timestep_conditioning=True,
    ),
)
TABLE4_ROWS = _by_name(
    TABLE2_ROWS["d"],
    Row("m=0", "prior", "time-aware", "m = 0, s = 1", m=0.0),
    Row("m=0.5", "prior", "time-aware", "m = 0.5, s = 1", m=0.5),
    Row("s=0.5", "prior", "time-aware", "m = -0.5, s = 0.5", s=0.5),
)
REGRESSION = "regression"
"""Name of the plain regression baseline."""
TRADE = "trade"
"""Folder of the results with fewer sampling steps, inside the folder of results."""


@dataclass(frozen=True)
class Ablation:
    """A table of restorers.

    Attributes:
        rows: The rows by name.
        compared: Pairs of rows whose difference is reported, (row, row that is subtracted).
        paper_note: Results of the paper, a sentence without the full stop.
    """

    rows: dict[str, Row]
    compared: tuple[tuple[str, str], ...]
    paper_note: str


ABLATIONS = {
    "table2": Ablation(
        TABLE2_ROWS,
        (
            ("b", "a"),
            ("c", "b"),
            ("c'", "b"),
            ("d", "b"),
            ("d", "c'"),
            ("d", "c"),
            ("d'", "b"),
            ("d'", "d"),
        ),
        "The paper's rows, on CelebA-Test (PSNR / MANIQA / MUSIQ / CLIPIQA): "
        "a 24.39 / .5781 / 69.25 / .6465; b 25.59 / .5057 / 74.42 / .7088; "
        "c 23.95 / .6449 / 73.66 / .6821; d 25.57 / .6624 / 75.76 / .7065",
    ),
    "table4": Ablation(
        TABLE4_ROWS,
        (("m=0", "d"), ("m=0.5", "d"), ("s=0.5", "d")),
        "The paper chooses m = -0.5, s = 1",
    ),
}


@dataclass(frozen=True)
class MetricInfo:
    """How a metric of the small experiments is shown and compared.

    Attributes:
        heading: Heading of its column.
        higher_is_better: Whether a larger value is better.
    """

    heading: str
    higher_is_better: bool


METRICS = {
    "psnr": MetricInfo("PSNR dB", True),
    "ssim": MetricInfo("SSIM", True),
    "ms_ssim": MetricInfo("MS-SSIM", True),
    "features": MetricInfo("feature distance", False),
    "psnr_regions": MetricInfo("PSNR dB, eyes and mouth", True),
    "detail_error": MetricInfo("detail error, eyes and mouth", False),
    "descriptor": MetricInfo("descriptor distance", False),
}
