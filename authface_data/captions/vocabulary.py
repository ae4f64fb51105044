"""The controlled vocabulary: facets, their canonical tags, and which tags exclude each other (vocabulary.toml says how)."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Literal

Family = Literal["semantic", "photographic"]
Sensitive = Literal["age", "ethnicity", "gender"]
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Facet:
    """tags: the canonical ones; heads: last words that place any other tag here; exclusive: groups of which one can be true."""

    name: str
    family: Family
    tags: frozenset[str]
    heads: frozenset[str]
    pattern: re.Pattern[str] | None
    exclusive: tuple[frozenset[str], ...]


@dataclass(frozen=True)
class Vocabulary:
    """synonyms: every known way to say a tag, in lower case -> the canonical tag; facets: in the order of a caption; cut_first:
    names of facets, the least important first; unsaid: facts that no caption says; sensitive: attribute -> word -> what stands
    for it; the rest: kinds of words, see words.py."""

    facets: tuple[Facet, ...]
    synonyms: dict[str, str]
    cut_first: tuple[str, ...]
    unsaid: frozenset[str]
    sensitive: dict[str, dict[str, str]]
    splits: frozenset[str]
    prepositions: frozenset[str]
    fillers: frozenset[str]
    adverbs: frozenset[str]
    not_adverbs: frozenset[str]
    says_nothing: frozenset[str]
    openers: tuple[str, ...]

    @cached_property
    def _facet_of(self) -> dict[str, Facet]:
        return {tag: facet for facet in self.facets for tag in facet.tags}

    def facet_of(self, tag: str) -> Facet | None:
        """The facet of a tag: that of the canonical tag, else by its pattern, else by its last word. None where it has none."""
        tag = tag.lower()
        if tag in self._facet_of:
            return self._facet_of[tag]
        last = tag.split()[-1] if tag.split() else ""
        for facet in self.facets:
            if facet.pattern is not None and facet.pattern.fullmatch(tag):
                return facet
        return next((facet for facet in self.facets if last in facet.heads), None)

    def facet_name(self, tag: str) -> str:
        facet = self.facet_of(tag)
        return UNKNOWN if facet is None else facet.name

    def exclude(self, one: str, other: str) -> bool:
        """Whether only one of two canonical tags can be true of a picture."""
        facet = self._facet_of.get(one)
        return (
            one != other
            and facet is not None
            and any(one in group and other in group for group in facet.exclusive)
        )


@lru_cache(maxsize=1)
def load_vocabulary() -> Vocabulary:
    """The one in vocabulary.toml."""
    said = tomllib.loads(vocabulary_text())
    facets = tuple(
        Facet(
            name=facet["name"],
            family=facet["family"],
            tags=frozenset(facet["tags"]),
            heads=frozenset(facet["heads"]),
            pattern=re.compile(facet["pattern"]) if "pattern" in facet else None,
            exclusive=tuple(frozenset(group) for group in facet.get("exclusive", [])),
        )
        for facet in said["facet"]
    )
    synonyms = {
        word: tag for facet in said["facet"] for tag, others in facet["tags"].items() for word in (tag, *others)
    }  # fmt: skip
    kinds = (
        "splits",
        "prepositions",
        "fillers",
        "adverbs",
        "not_adverbs",
        "says_nothing",
        "unsaid",
    )
    return Vocabulary(
        facets=facets,
        synonyms=synonyms,
        cut_first=tuple(said["cut_first"]),
        sensitive=said["sensitive"],
        openers=tuple(sorted(said["openers"], key=len, reverse=True)),
        **{kind: frozenset(said[kind]) for kind in kinds},
    )


@lru_cache(maxsize=1)
def vocabulary_text() -> str:
    return (resources.files("authface_data.captions") / "vocabulary.toml").read_text("utf-8")
