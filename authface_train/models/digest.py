"""Digests of models and tokenizers, which key caches and protect resumed runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import xxhash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK_VALUES = 2**22
"""Values that are converted to float32 at once."""

# Configuration keys that record how a model was loaded, not what it computes.
LOADING_KEYS = {"architectures", "transformers_version", "dtype", "torch_dtype"}


def model_digest(model: torch.nn.Module) -> str:
    """Hash the configuration and the weights of a model.

    Weights in half precision have the digest of their float32 values.

    Returns:
        32 hex digits.
    """
    digest = xxhash.xxh3_128(repr(sorted(_configuration(model).items())).encode())
    # One buffer for all conversions: new memory would cost more than they do.
    buffer = torch.empty(CHUNK_VALUES)
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        content = value.detach().cpu().contiguous().view(-1)
        if content.dtype not in (torch.float16, torch.bfloat16):
            digest.update(memoryview(content.view(torch.uint8).numpy()))
            continue
        for chunk in content.split(CHUNK_VALUES):
            converted = buffer[: len(chunk)].copy_(chunk)
            digest.update(converted.numpy().data)
    return digest.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash the vocabulary and the padding token of a tokenizer.

    Returns:
        32 hex digits.
    """
    vocabulary = sorted(tokenizer.get_vocab().items())
    return xxhash.xxh3_128(repr((vocabulary, tokenizer.pad_token)).encode()).hexdigest()


def _configuration(model: torch.nn.Module) -> dict[str, Any]:
    """The configuration of a diffusers or transformers model without `LOADING_KEYS`."""
    config: Any = getattr(model, "config", {})
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {
        name: value
        for name, value in values.items()
        if not name.startswith("_") and name not in LOADING_KEYS
    }
