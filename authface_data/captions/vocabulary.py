"""From a model's words to tags: split, stripped of openers, synonyms made one, duplicates gone."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib import resources

OPENERS = re.compile(r"^(the|this|an?) (image|photo|photograph|picture) (shows|depicts|is of|features|of) ", re.IGNORECASE)
MAX_WORDS = 5


@lru_cache(maxsize=1)
def synonyms() -> dict[str, str]:
    """Every known way to say a tag, in lower case -> the canonical tag."""
    text = (resources.files("authface_data.captions") / "vocabulary.toml").read_text("utf-8")
    known: dict[str, str] = {}
    for facet in tomllib.loads(text)["facet"]:
        for tag, others in facet["tags"].items():
            known.update(dict.fromkeys([tag, *others], tag))
    return known


def tags_of(answer: str) -> list[str]:
    """A model's comma-separated answer as tags, in order. What is longer than five words is a sentence, not a tag, and goes."""
    tags: dict[str, None] = {}
    for piece in re.split(r"[,;\n]", OPENERS.sub("", answer.strip())):
        tag = re.sub(r"\s+", " ", piece).strip(" .\"'*-").lower()
        tag = re.sub(r"^(a|an|the) ", "", tag)
        if tag and len(tag.split()) <= MAX_WORDS:
            tags[synonyms().get(tag, tag)] = None
    return list(tags)
