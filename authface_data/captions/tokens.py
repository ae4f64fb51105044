"""How long a caption is for SDXL's text encoders, which see 77 tokens."""

from __future__ import annotations

from functools import lru_cache

from manifests.support.clip_tokens import clip_vocabulary


@lru_cache(maxsize=1)
def tokenizers():
    """SDXL's two: CLIP's, which pads with its last token, and OpenCLIP's, which has the same vocabulary and pads with "!"."""
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    return (
        CLIPTokenizer(vocab=vocabulary, merges=merges),
        CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token="!"),
    )


def count(caption: str) -> int:
    """CLIP tokens of a caption, with the one before and the one after: the most that either tokenizer counts."""
    return max(len(tokenizer(caption, truncation=False).input_ids) for tokenizer in tokenizers())
