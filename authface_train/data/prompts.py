"""Text embeddings of both of SDXL's encoders, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Prompts:
    """embeds: (n, 77, d) float32, hidden_states[-2] of both encoders side by side; pooled: (n, p) float32; of_row: which of
    the n each row has."""

    embeds: torch.Tensor
    pooled: torch.Tensor
    of_row: list[int]


@torch.no_grad()
def encode_prompts(pipeline: Any, captions: Sequence[str], device: torch.device) -> Prompts:
    """Encode captions, each different one once. The empty caption is encoded as any other: it is the null prompt.

    pipeline: a StableDiffusionXLPipeline; its text encoders are moved to the device.
    """
    different = list(dict.fromkeys(captions))
    pipeline.text_encoder.to(device)
    pipeline.text_encoder_2.to(device)
    embeds, pooled = [], []
    for caption in different:
        made, _, pool, _ = pipeline.encode_prompt(
            prompt=caption, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        embeds.append(made[0].float().cpu())
        pooled.append(pool[0].float().cpu())
    place = {caption: index for index, caption in enumerate(different)}
    return Prompts(torch.stack(embeds), torch.stack(pooled), [place[caption] for caption in captions])


def time_ids(size_px: int) -> list[float]:
    """SDXL's size conditioning: original height and width, crop top and left, target height and width."""
    return [float(size_px), float(size_px), 0.0, 0.0, float(size_px), float(size_px)]
