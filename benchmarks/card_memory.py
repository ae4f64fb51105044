"""Estimated memory of both stages on cards that this machine need not have.

    python benchmarks/card_memory.py

For each arrangement of cards and preset: the micro-batch and accumulation that a run would choose,
and the memory of a card. The U-Net is SDXL's, without weights; the estimates are those of
`--dry-run`. docs/many-machines.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel

from authface_train.memory.estimator import USABLE_FRACTION, MemoryEstimator
from authface_train.memory.fake_tensor_pass import PriorPass, RestorerPass
from authface_train.models.sdxl_config import SDXL_CONFIGURATION, arguments
from authface_train.presets import load_preset
from authface_train.training.loop import accumulation_steps

GB = 1e9
STAGES = {"prior": "I", "restorer": "II"}
PIXELS_PER_CELL = 8


@dataclass(frozen=True)
class Arrangement:
    """Cards of one kind, and the preset that is started on them."""

    cards: str
    num_cards: int
    card_gb: float
    preset: str


ARRANGEMENTS = (
    Arrangement("4 x 48 GB", 4, 48, "4x48gb"),
    Arrangement("8 x 80 GB", 8, 80, "8x80gb"),
    Arrangement("2 machines x 8 x 80 GB", 16, 80, "8x80gb"),
    Arrangement("2 machines x 8 x 48 GB", 16, 48, "8x80gb"),
)


def main() -> None:
    """Print the estimates as a Markdown table."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**arguments(SDXL_CONFIGURATION, "unet"))
    # The fake tensors are on the CPU, since the backward pass of other ones needs the device.
    cpu = torch.device("cpu")
    prior = PriorPass(unet, load_preset("prior", "paper"), PIXELS_PER_CELL)
    restorer = RestorerPass(unet, load_preset("restorer", "paper"), PIXELS_PER_CELL)
    estimators = {"prior": MemoryEstimator(prior, cpu), "restorer": MemoryEstimator(restorer, cpu)}

    print("| cards | `--preset` | stage | sharding | batch | GB a card | GB usable |")
    print("|---|---|---|---|---|---|---|")
    for stage, estimator in estimators.items():
        for arrangement in ARRANGEMENTS:
            print(_row(stage, estimator, arrangement), flush=True)


def _row(stage: str, estimator: MemoryEstimator, arrangement: Arrangement) -> str:
    settings = load_preset(stage, arrangement.preset)
    num_cards = arrangement.num_cards
    usable_bytes = USABLE_FRACTION * arrangement.card_gb * GB
    micro_batch = estimator.derive_micro_batch(settings, num_cards, usable_bytes)
    memory = estimator.estimate(settings, micro_batch, num_cards)
    settings = settings.model_copy(update={"micro_batch": micro_batch})
    accumulation = accumulation_steps(settings, num_cards)
    return (
        f"| {arrangement.cards} | `{arrangement.preset}` | {STAGES[stage]} | `{settings.sharding}` "
        f"| {settings.batch} = {micro_batch} x {accumulation} x {num_cards} "
        f"| {memory.total / GB:.1f} | {usable_bytes / GB:.1f} |"
    )


if __name__ == "__main__":
    main()
