"""How long a caption is for SDXL's text encoders, which see 77 tokens."""

from __future__ import annotations

from functools import lru_cache

from manifests.clip_tokens import clip_vocabulary


@lru_cache(maxsize=1)
def _tokenizer():
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def count(caption: str) -> int:
    """CLIP tokens of a caption, with the one before and the one after."""
    return len(_tokenizer()(caption, truncation=False).input_ids)
