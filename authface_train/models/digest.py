"""Digests of models and tokenizers, which key caches and protect resumed runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import xxhash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Configuration keys that record how a model was loaded, not what it computes.
LOADING_KEYS = {"architectures", "transformers_version", "dtype", "torch_dtype"}


def model_digest(model: torch.nn.Module) -> str:
    """Hash the configuration and the weights of a model.

    Returns:
        32 hex digits.
    """
    digest = xxhash.xxh3_128(repr(sorted(_configuration(model).items())).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        content = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(memoryview(content.numpy()))
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
