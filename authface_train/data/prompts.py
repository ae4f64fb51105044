"""Text embeddings of both of SDXL's encoders, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from authface_train.data.counters import numpy_generator
from manifests.clip_tokens import fit


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


def captions_of(
    pipeline: Any, tags: Sequence[Sequence[str]], face_ids: Sequence[str], orders: int, seed: int
) -> tuple[list[str], int]:
    """The captions of every row, `orders` of each, one row after the other; and how many rows had too many tags.

    A row's tags that the text encoders would not see whole are left out, from the last. Of one order it is the tags' own; of
    several each is a shuffle, by the seed, its number and the face_id.
    """
    captions, cut = [], 0
    for face_id, own in zip(face_ids, tags, strict=True):
        seen, left_out = fit(own, lambda caption: _tokens(pipeline, caption))
        cut += bool(left_out)
        for number in range(orders):
            order = numpy_generator(seed, number, face_id, "tags").permutation(len(seen)) if orders > 1 else range(len(seen))
            captions.append(", ".join(seen[place] for place in order))
    return captions, cut


def _tokens(pipeline: Any, caption: str) -> int:
    """How many tokens a caption is, by whichever tokenizer counts more."""
    both = (pipeline.tokenizer, pipeline.tokenizer_2)
    return max(len(tokenizer(caption, truncation=False).input_ids) for tokenizer in both)


def time_ids(size_px: int) -> list[float]:
    """SDXL's size conditioning: original height and width, crop top and left, target height and width."""
    return [float(size_px), float(size_px), 0.0, 0.0, float(size_px), float(size_px)]
