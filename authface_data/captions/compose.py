"""A face's caption from what a model said and what was measured: in order of facets, true, and within 77 tokens.

Whatever can be decided again from the stored answers is decided here, in no time: vocabulary, which attributes may be named,
what contradicts a measurement, what is left out of too long a caption.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from authface_data.captions import tokens
from authface_data.captions.measured.measurement import HIGH_CONFIDENCE, Measurement
from authface_data.captions.normalise_tags import parse_tags
from authface_data.captions.vocabulary import UNKNOWN, Family, Sensitive, load_vocabulary
from manifests.settings import Captions
from manifests.captions import truncate_tags

ALIKE = 0.9  # difflib's ratio


class NoTags(ValueError):
    """A model's answers hold nothing that can be read as a tag."""


@dataclass(frozen=True)
class Contradiction:
    """A tag that is not true of the picture. against: the measured tag, or one said before that excludes it; confidence: of the
    measurement, None for what was said before."""

    tag: str
    against: str
    confidence: float | None


@dataclass
class Caption:
    """semantic, photographic: the tags in use. unknown: those of them in no facet. cut: left out for length. contradictions: of
    tags that were said; in use all the same if captions.contradictions is "keep"."""

    semantic: list[str]
    photographic: list[str]
    unknown: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)

    @property
    def text(self) -> str:
        return ", ".join([*self.semantic, *self.photographic])

    def columns(self) -> dict[str, Any]:
        """The columns of `captions` that follow from it."""
        return {
            "semantic_tags": self.semantic,
            "photographic_tags": self.photographic,
            "unknown_tags": self.unknown,
            "cut_tags": self.cut,
            "contradictions": [vars(one) for one in self.contradictions],
            "caption": self.text,
            "token_count": tokens.count(self.text),
        }


def caption_from_answers(
    semantic: str, photographic: str, measured: Sequence[Measurement], settings: Captions
) -> Caption:
    """The caption that two answers make. A known tag goes to the family of its facet, whichever question it answers."""
    said: dict[Family, list[str]] = {
        "semantic": parse_tags(semantic, settings.max_words),
        "photographic": parse_tags(photographic, settings.max_words),
    }
    return compose_caption(said, measured, settings)


def caption_columns(
    said: Sequence[str], facts: Sequence[Mapping[str, Any]] | None, settings: Captions
) -> dict[str, Any]:
    """The columns of `captions` that follow from a model's two answers and the face's `measurements`. Raises NoTags."""
    measured = [Measurement(**fact) for fact in facts or []]
    caption = caption_from_answers(said[0], said[1], measured, settings)
    if not caption.text:
        raise NoTags(f"{said[0][:80]!r}, {said[1][:80]!r}")
    return {
        "raw_answers": list(said),
        "measured_tags": visible_tags(measured),
        **caption.columns(),
    }


def visible_tags(facts: Sequence[Measurement]) -> list[str]:
    """Those of the facts that a caption says."""
    return [fact.tag for fact in facts if fact.tag not in load_vocabulary().unsaid]


def compose_caption(
    said: dict[Family, list[str]], measured: Sequence[Measurement], settings: Captions
) -> Caption:
    """The caption that tags of the two families make. measured: what they must not contradict."""
    words = load_vocabulary()
    placed: list[tuple[Family, str]] = []
    for family, tags in said.items():
        for tag in tags:
            if (tag := _named(tag, settings.sensitive)) and tag not in words.unsaid:
                facet = words.facet_of(tag)
                if facet is None or facet.name != "age band" or "age" in settings.sensitive:
                    placed.append((family if facet is None else facet.family, tag))
    order = {facet.name: number for number, facet in enumerate(words.facets)}
    placed.sort(
        key=lambda one: (one[0] == "photographic", order.get(words.facet_name(one[1]), len(order)))
    )
    distinct = _without_alike([tag for _, tag in placed])
    contradictions = _contradictions(distinct, measured)
    wrong = {one.tag for one in contradictions} if settings.contradictions == "leave out" else set()
    kept, cut = truncate_tags([tag for tag in distinct if tag not in wrong], tokens.count, _least_important)
    families = {tag: family for family, tag in reversed(placed)}
    return Caption(
        semantic=[tag for tag in kept if families[tag] == "semantic"],
        photographic=[tag for tag in kept if families[tag] == "photographic"],
        unknown=[tag for tag in kept if words.facet_of(tag) is None],
        cut=cut,
        contradictions=contradictions,
    )


def _named(tag: str, sensitive: Sequence[Sensitive]) -> str:
    """The tag without what it may not say of a person; "" where nothing is left."""
    words, left = load_vocabulary(), tag.split()
    for attribute, stand_ins in words.sensitive.items():
        if attribute not in sensitive:
            left = [part for word in left for part in stand_ins.get(word, word).split()]
    if left == tag.split():
        return tag
    said = " ".join(left)
    return "" if said in words.says_nothing else words.synonyms.get(said, said)


def _without_alike(tags: list[str]) -> list[str]:
    """Of tags that say the same, or the less exact of two in one facet, only one."""
    words = load_vocabulary()
    stems = {
        tag: frozenset(word.rstrip("s") for word in tag.replace("-", " ").split()) for tag in tags
    }
    facets = {tag: words.facet_name(tag) for tag in tags}

    def covered(tag: str, other: str) -> bool:
        return (
            facets[tag] == facets[other]
            and stems[tag] < stems[other]
            and not words.exclude(tag, other)
        )

    kept: list[str] = []
    for tag in dict.fromkeys(tags):
        if any(covered(tag, other) for other in tags if other != tag):
            continue
        alike = (
            stems[tag] == stems[other]
            or (
                facets[tag] == facets[other]
                and difflib.SequenceMatcher(None, tag, other).ratio() >= ALIKE
            )
            for other in kept
        )
        if not any(alike):
            kept.append(tag)
    return kept


def _contradictions(tags: list[str], measured: Sequence[Measurement]) -> list[Contradiction]:
    words, found, true = load_vocabulary(), [], list[str]()
    for tag in tags:
        against = next(
            (one for one in measured if one.confidence >= HIGH_CONFIDENCE and words.exclude(tag, one.tag)),
            None,
        )
        before = next((one for one in true if words.exclude(tag, one)), None)
        if against is not None:
            found.append(Contradiction(tag, against.tag, round(against.confidence, 3)))
        elif before is not None:
            found.append(Contradiction(tag, before, None))
        else:
            true.append(tag)
    return found


def _least_important(tags: list[str]) -> int:
    """The place of the tag to leave out first: an unknown one, else one of the least important facet; of several, the last."""
    words = load_vocabulary()
    rank = {UNKNOWN: -1, **{name: number for number, name in enumerate(words.cut_first)}}
    ranks = [rank[words.facet_name(tag)] for tag in tags]
    return max(place for place, one in enumerate(ranks) if one == min(ranks))
