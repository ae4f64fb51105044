"""Text embeddings of SDXL's two encoders, computed once and kept in the workspace's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from accelerate import Accelerator

from authface_train.data.cache import Cache, CachedSequence, ProgressFunction, Record, fill_cache
from authface_train.models.digest import model_digest, tokenizer_digest
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

BATCH_SIZE = 16


class Embedding(NamedTuple):
    """The embedding of one caption, in SDXL's arrangement."""

    embeds: torch.Tensor
    """(77, dim) float32: `hidden_states[-2]` of both encoders, concatenated (2048 for SDXL)."""
    pooled: torch.Tensor
    """(pooled_dim,) float32: projected output of the second encoder (1280 for SDXL)."""


class Prompts(CachedSequence[Embedding]):
    """The embedding of each caption of a list."""

    def __getitem__(self, index: int) -> Embedding:  # type: ignore[override]
        """The embedding of the caption at `index`."""
        record = self.cache[self.keys[index]]
        return Embedding(record["embeds"], record["pooled"])


def prompts_cache(workspace: Workspace, pipeline: StableDiffusionXLPipeline) -> Cache:
    """The cache of embeddings for a pair of text encoders, keyed by the SHA-256 of the caption.

    Args:
        workspace: The workspace.
        pipeline: Its text encoders and tokenizers decide the folder.
    """
    models = [model_digest(model) for model in (pipeline.text_encoder, pipeline.text_encoder_2)]
    tokenizers = [
        tokenizer_digest(tokenizer) for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)
    ]
    return Cache(workspace, f"cache/prompts/{fingerprint(models=models, tokenizers=tokenizers)}")


def cached_prompts(
    workspace: Workspace,
    pipeline: StableDiffusionXLPipeline,
    captions: Sequence[str],
    accelerator: Accelerator,
    report: ProgressFunction,
) -> Prompts:
    """The embeddings of captions; missing ones are computed, each distinct caption once.

    The empty caption is encoded like any other; its embedding is the null prompt.

    Args:
        workspace: The workspace.
        pipeline: Its text encoders are moved to the accelerator's device if they are needed.
        captions: The captions.
        accelerator: The run's accelerator.
        report: Is called with the number of embeddings done and to do.

    Returns:
        One item per caption.
    """
    cache = prompts_cache(workspace, pipeline)
    keys = [hashlib.sha256(caption.encode()).hexdigest() for caption in captions]
    caption_of = dict(zip(keys, captions, strict=True))

    def compute(missing: list[str]) -> Iterator[Record]:
        for model in (pipeline.text_encoder, pipeline.text_encoder_2):
            model.to(accelerator.device)
        for start in range(0, len(missing), BATCH_SIZE):
            batch = [caption_of[key] for key in missing[start : start + BATCH_SIZE]]
            yield from encode_prompts(pipeline, batch, accelerator.device)

    fill_cache(cache, keys, compute, accelerator, report)
    return Prompts(cache, keys)


@torch.no_grad()
def encode_prompts(
    pipeline: StableDiffusionXLPipeline, captions: list[str], device: torch.device
) -> list[Record]:
    """Encode up to `BATCH_SIZE` captions.

    The batch is always filled up to `BATCH_SIZE`, because the choice of kernels, and with it the
    last bits of an embedding, depends on the batch size.

    Args:
        pipeline: A pipeline whose text encoders are on the device.
        captions: The captions, at most `BATCH_SIZE`.
        device: Device of the text encoders.

    Returns:
        One record per caption with `embeds` and `pooled`, see `Embedding`, on the CPU.
    """
    padded = [*captions, *[""] * (BATCH_SIZE - len(captions))]
    embeds, _, pooled, _ = pipeline.encode_prompt(
        prompt=padded, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    embeds = embeds.float().cpu()
    pooled = pooled.float().cpu()
    return [
        {"embeds": embeds[index].clone(), "pooled": pooled[index].clone()}
        for index in range(len(captions))
    ]


def time_ids(size_px: int) -> list[float]:
    """SDXL's size conditioning of a square picture that is neither scaled nor cropped.

    Returns:
        Original height and width, top and left of the crop, target height and width, in pixels.
    """
    return [float(size_px), float(size_px), 0.0, 0.0, float(size_px), float(size_px)]
