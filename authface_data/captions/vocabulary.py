"""The controlled vocabulary of caption tags, read from vocabulary.toml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Literal

from manifests.support.parsing import parse_toml

Family = Literal["semantic", "photographic"]
SensitiveAttribute = Literal["age", "ethnicity", "gender"]
UNKNOWN = "unknown"
"""Facet name of tags that belong to no facet."""


@dataclass(frozen=True)
class Facet:
    """A property that tags describe, such as hair, light or view.

    Attributes:
        name: Name of the facet.
        family: Family that its tags belong to.
        tags: The canonical tags.
        heads: Last words that assign any other tag to the facet: "hair" assigns "long black hair".
        pattern: Regular expression that assigns any other tag to the facet, if there is one.
        exclusive: Groups of canonical tags. At most one tag of a group applies to a picture.
    """

    name: str
    family: Family
    tags: frozenset[str]
    heads: frozenset[str]
    pattern: re.Pattern[str] | None
    exclusive: tuple[frozenset[str], ...]


@dataclass(frozen=True)
class Vocabulary:
    """Facets, synonyms, and the word lists that parsing needs.

    Attributes:
        facets: The facets in the order of a caption.
        synonyms: Every known wording of a tag, in lower case -> the canonical tag. It includes the
            canonical tags.
        cut_first: Names of all facets, the least important one first. A caption that is too long
            loses tags in this order.
        hidden_tags: Measured tags that serve to detect contradictions and never appear in captions.
        sensitive: Attribute -> word that reveals it -> replacement, which may be empty.
        splits: Words that separate two tags.
        prepositions: Words that separate the parts of a phrase.
        fillers: Words that are removed from tags.
        adverbs: Adverbs that are removed from tags, besides words that end in "ly".
        not_adverbs: Words that end in "ly" and are not adverbs.
        meaningless_tags: Tags that carry no information by themselves, such as "image".
        openers: Phrases that introduce an answer, the longest first.
    """

    facets: tuple[Facet, ...]
    synonyms: dict[str, str]
    cut_first: tuple[str, ...]
    hidden_tags: frozenset[str]
    sensitive: dict[str, dict[str, str]]
    splits: frozenset[str]
    prepositions: frozenset[str]
    fillers: frozenset[str]
    adverbs: frozenset[str]
    not_adverbs: frozenset[str]
    meaningless_tags: frozenset[str]
    openers: tuple[str, ...]

    @cached_property
    def _facet_of_canonical(self) -> dict[str, Facet]:
        return {tag: facet for facet in self.facets for tag in facet.tags}

    def find_facet(self, tag: str) -> Facet | None:
        """Find the facet of a tag: by canonical tag, then by pattern, then by the last word.

        Args:
            tag: Any tag; upper and lower case are not distinguished.

        Returns:
            The facet; None for an unknown tag.
        """
        tag = tag.lower()
        if tag in self._facet_of_canonical:
            return self._facet_of_canonical[tag]
        for facet in self.facets:
            if facet.pattern is not None and facet.pattern.fullmatch(tag):
                return facet
        words = tag.split()
        last_word = words[-1] if words else ""
        return next((facet for facet in self.facets if last_word in facet.heads), None)

    def facet_name(self, tag: str) -> str:
        """Return the name of a tag's facet, or `UNKNOWN`."""
        facet = self.find_facet(tag)
        return UNKNOWN if facet is None else facet.name

    def are_exclusive(self, tag: str, other: str) -> bool:
        """Whether at most one of two tags applies to a picture.

        Args:
            tag: A canonical tag; other tags exclude nothing.
            other: The tag to compare with.
        """
        facet = self._facet_of_canonical.get(tag)
        if facet is None or tag == other:
            return False
        return any(tag in group and other in group for group in facet.exclusive)


@lru_cache(maxsize=1)
def load_vocabulary() -> Vocabulary:
    """Read vocabulary.toml; later calls return the same object."""
    data = parse_toml(vocabulary_text(), "the vocabulary")
    facets = []
    synonyms = {}
    for table in data["facet"]:
        facets.append(
            Facet(
                name=table["name"],
                family=table["family"],
                tags=frozenset(table["tags"]),
                heads=frozenset(table["heads"]),
                pattern=re.compile(table["pattern"]) if "pattern" in table else None,
                exclusive=tuple(frozenset(group) for group in table.get("exclusive", [])),
            )
        )
        for tag, alternatives in table["tags"].items():
            synonyms.update(dict.fromkeys([tag, *alternatives], tag))

    return Vocabulary(
        facets=tuple(facets),
        synonyms=synonyms,
        cut_first=tuple(data["cut_first"]),
        hidden_tags=frozenset(data["hidden_tags"]),
        sensitive=data["sensitive"],
        splits=frozenset(data["splits"]),
        prepositions=frozenset(data["prepositions"]),
        fillers=frozenset(data["fillers"]),
        adverbs=frozenset(data["adverbs"]),
        not_adverbs=frozenset(data["not_adverbs"]),
        meaningless_tags=frozenset(data["meaningless_tags"]),
        openers=tuple(sorted(data["openers"], key=len, reverse=True)),
    )


@lru_cache(maxsize=1)
def vocabulary_text() -> str:
    """Return the text of vocabulary.toml.

    Stored captions depend on it: the text, comments included, is part of their `composition` hash.
    """
    return (resources.files("authface_data.captions") / "vocabulary.toml").read_text("utf-8")
