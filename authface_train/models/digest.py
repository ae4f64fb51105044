"""What a model is, in a few digits: what caches made by it are keyed by, and what a resumed run is held to."""

from __future__ import annotations

from typing import Any

import torch
import xxhash

OF_LOADING = {"architectures", "transformers_version", "dtype", "torch_dtype"}


def model_digest(model: torch.nn.Module) -> str:
    """32 hex digits over a model's configuration and weights."""
    digest = xxhash.xxh3_128(repr(sorted(_config(model).items())).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            memoryview(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        )
    return digest.hexdigest()


def _config(model: Any) -> dict[str, Any]:
    """Without what says where it was loaded from and by what, not what it is."""
    config = getattr(model, "config", {})
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {
        name: value
        for name, value in values.items()
        if not name.startswith("_") and name not in OF_LOADING
    }


def tokenizer_digest(tokenizer: object) -> str:
    """32 hex digits over a tokenizer's vocabulary and padding."""
    vocabulary = sorted(tokenizer.get_vocab().items())  # type: ignore[attr-defined]
    return xxhash.xxh3_128(repr((vocabulary, tokenizer.pad_token)).encode()).hexdigest()  # type: ignore[attr-defined]
