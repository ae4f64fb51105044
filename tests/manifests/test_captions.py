"""The text of captions, and the tags left out of captions that are too long."""

import pytest

from manifests.captions import caption_text, truncate_tags
from manifests.support.clip_tokens import MAX_TOKENS


def count_words(caption: str) -> int:
    return len(caption.split())


def test_caption_text_joins_tags_with_commas():
    assert caption_text(["man", "front view"]) == "man, front view"
    assert caption_text([]) == ""


def test_last_tags_are_removed_first():
    tags = [f"tag{number}" for number in range(MAX_TOKENS + 2)]
    remaining, removed = truncate_tags(tags, count_words)
    assert remaining == tags[:MAX_TOKENS]
    assert removed == [tags[-1], tags[-2]]


def test_short_caption_keeps_all_tags():
    assert truncate_tags(["man", "hat"], count_words) == (["man", "hat"], [])


@pytest.mark.parametrize("index", [0, 3])
def test_chosen_tags_are_removed(index):
    tags = [f"tag{number}" for number in range(MAX_TOKENS + 1)]
    remaining, removed = truncate_tags(tags, count_words, lambda tags: index)
    assert removed == [f"tag{index}"]
    assert len(remaining) == MAX_TOKENS
