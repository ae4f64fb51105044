"""Text embeddings of both of SDXL's encoders, computed once and kept in the workspace's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from authface_train.data.cache import Cache, CachedSequence, ProgressFunction, Record, fill
from authface_train.models.digest import model_digest, tokenizer_digest
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

TOGETHER = 16


class Embedding(NamedTuple):
    """embeds: (77, d) float32, hidden_states[-2] of both encoders side by side; pooled: (p,) float32."""

    embeds: torch.Tensor
    pooled: torch.Tensor


class Prompts(CachedSequence):
    """The embedding of each of a row of captions."""

    def __getitem__(self, index: Any) -> Any:
        record = self.cache[self.keys[index]]
        return Embedding(record["embeds"], record["pooled"])


def prompts_cache(workspace: Workspace, pipeline: Any) -> Cache:
    """Keyed by the caption's hash, in a folder of the text encoders' weights and the tokenizers."""
    models = [model_digest(model) for model in (pipeline.text_encoder, pipeline.text_encoder_2)]
    words = [
        tokenizer_digest(tokenizer) for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)
    ]
    return Cache(workspace, f"cache/prompts/{fingerprint(models=models, tokenizers=words)}")


def cached_prompts(
    workspace: Workspace,
    pipeline: Any,
    captions: Sequence[str],
    accelerator: Accelerator,
    report: ProgressFunction,
) -> Prompts:
    """Embeddings of captions, each different one made once. The empty caption is encoded as any other: it is the null prompt.

    pipeline: a StableDiffusionXLPipeline; its text encoders are moved to the accelerator's device where they are needed.
    """
    cache = prompts_cache(workspace, pipeline)
    keys = [hashlib.sha256(caption.encode()).hexdigest() for caption in captions]
    text = dict(zip(keys, captions, strict=True))

    def make(wanted: list[str]) -> Iterator[Record]:
        for model in (pipeline.text_encoder, pipeline.text_encoder_2):
            model.to(accelerator.device)
        for at in range(0, len(wanted), TOGETHER):
            yield from encode(
                pipeline, [text[key] for key in wanted[at : at + TOGETHER]], accelerator.device
            )

    fill(cache, keys, make, accelerator, report)
    return Prompts(cache, keys)


@torch.no_grad()
def encode(pipeline: Any, captions: list[str], device: torch.device) -> list[Record]:
    """Records of up to TOGETHER captions. Always TOGETHER are encoded, so that a caption's do not depend on its company."""
    filled = [*captions, *[""] * (TOGETHER - len(captions))]
    embeds, _, pooled, _ = pipeline.encode_prompt(
        prompt=filled, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    embeds, pooled = embeds.float().cpu(), pooled.float().cpu()
    return [
        {"embeds": embeds[place].clone(), "pooled": pooled[place].clone()}
        for place in range(len(captions))
    ]


def time_ids(size_px: int) -> list[float]:
    """SDXL's size conditioning: original height and width, crop top and left, target height and width."""
    return [float(size_px), float(size_px), 0.0, 0.0, float(size_px), float(size_px)]
