"""How long a caption is for SDXL's text encoders, which see 77 tokens; and how whole tags are left out of one that is longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from manifests.clip_tokens import clip_vocabulary

LIMIT = 77


@lru_cache(maxsize=1)
def tokenizers():
    """SDXL's two: CLIP's, which pads with its last token, and OpenCLIP's, which has the same vocabulary and pads with "!"."""
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    return (
        CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LIMIT),
        CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LIMIT, pad_token="!"),
    )


def count(caption: str) -> int:
    """CLIP tokens of a caption, with the one before and the one after: the most that either tokenizer counts."""
    return max(len(tokenizer(caption, truncation=False).input_ids) for tokenizer in tokenizers())


def fit(tags: Sequence[str], least: Callable[[list[str]], int] = lambda tags: len(tags) - 1) -> tuple[list[str], list[str]]:
    """The tags whose caption the encoders see whole, and those left out for it, in the order they went.

    least: the place of the tag to leave out next; by default the last.
    """
    kept, cut = list(tags), []
    while kept and count(", ".join(kept)) > LIMIT:
        cut.append(kept.pop(least(kept)))
    return kept, cut
