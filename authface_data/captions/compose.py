"""Composes the caption of a face from the answers of a model and from measurements.

A caption lists tags in the order of their facets, leaves out tags that contradict a measurement,
and fits the 77 tokens of SDXL's text encoders. Everything here depends on stored answers only, so
a change of settings or vocabulary never needs the model again (see recompose.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from authface_data.captions.measured.measurement import HIGH_CONFIDENCE, Measurement
from authface_data.captions.normalise_tags import parse_tags, strip_sensitive
from authface_data.captions.vocabulary import UNKNOWN, Family, load_vocabulary
from manifests.captions import caption_text, truncate_tags
from manifests.settings import Captions
from manifests.support.clip_tokens import clip_vocabulary

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

NEAR_DUPLICATE_RATIO = 0.9
"""Tags of one facet with at least this `difflib` similarity are near-duplicates."""

AGE_FACET = "age band"


class NoTags(ValueError):
    """The answers of a model contain no tags. The class name is part of stored failure reasons."""


@dataclass(frozen=True)
class Contradiction:
    """A tag that a measured tag or another tag of the caption excludes.

    Attributes:
        tag: The tag.
        against: The tag that excludes it: a measured one, or an earlier one of the same caption.
        confidence: Confidence of the measurement; None if `against` is not a measured tag.
    """

    tag: str
    against: str
    confidence: float | None


@dataclass
class Caption:
    """A composed caption.

    Attributes:
        semantic: Semantic tags in the order of the caption.
        photographic: Photographic tags in the order of the caption.
        unknown: The tags of both families that belong to no facet.
        cut: Tags left out because the caption was too long, in the order of removal.
        contradictions: Tags that contradict a measurement or another tag. They are part of the
            caption only if the setting `captions.contradictions` is "keep".
    """

    semantic: list[str]
    photographic: list[str]
    unknown: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The caption as text: all tags, separated by commas."""
        return caption_text([*self.semantic, *self.photographic])

    def columns(self) -> dict[str, Any]:
        """Return the columns of `captions` that this caption determines."""
        return {
            "semantic_tags": self.semantic,
            "photographic_tags": self.photographic,
            "unknown_tags": self.unknown,
            "cut_tags": self.cut,
            "contradictions": [vars(contradiction) for contradiction in self.contradictions],
            "caption": self.text,
            "token_count": count_tokens(self.text),
        }


@lru_cache(maxsize=1)
def sdxl_tokenizers() -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """Create the tokenizers of SDXL's two text encoders.

    Returns:
        CLIP's tokenizer, which pads with the end token, and OpenCLIP's, which has the same
        vocabulary and pads with "!".
    """
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    return (
        CLIPTokenizer(vocab=vocabulary, merges=merges),
        CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token="!"),
    )


def count_tokens(caption: str) -> int:
    """Count the tokens of a caption, start and end token included.

    The result is the larger of the counts of SDXL's two tokenizers.
    """
    return max(
        len(tokenizer(caption, truncation=False).input_ids) for tokenizer in sdxl_tokenizers()
    )


def caption_columns(
    answers: Sequence[str], measurements: Sequence[Mapping[str, Any]] | None, settings: Captions
) -> dict[str, Any]:
    """Compose a model's answers into the columns of `captions` that depend on them.

    Args:
        answers: The answers to the semantic and to the photographic question.
        measurements: The face's column `measurements`; None if it has not been measured.
        settings: The section `captions` of the workspace's settings.

    Returns:
        Column -> value.

    Raises:
        NoTags: If neither answer contains a tag.
    """
    measured = [Measurement(**columns) for columns in measurements or []]
    caption = caption_from_answers(answers[0], answers[1], measured, settings)
    if not caption.text:
        raise NoTags(f"{answers[0][:80]!r}, {answers[1][:80]!r}")
    return {
        "raw_answers": list(answers),
        "measured_tags": visible_tags(measured),
        **caption.columns(),
    }


def visible_tags(measurements: Sequence[Measurement]) -> list[str]:
    """Return the measured tags that captions may contain."""
    hidden = load_vocabulary().hidden_tags
    return [measurement.tag for measurement in measurements if measurement.tag not in hidden]


def caption_from_answers(
    semantic: str, photographic: str, measurements: Sequence[Measurement], settings: Captions
) -> Caption:
    """Parse two answers and compose their tags.

    Args:
        semantic: The answer to the semantic question.
        photographic: The answer to the photographic question.
        measurements: Measurements that the tags must not contradict.
        settings: The section `captions` of the workspace's settings.

    Returns:
        The caption; it is empty if the answers contain no tags.
    """
    tags: dict[Family, list[str]] = {
        "semantic": parse_tags(semantic, settings.max_words),
        "photographic": parse_tags(photographic, settings.max_words),
    }
    return compose_caption(tags, measurements, settings)


def compose_caption(
    tags: Mapping[Family, Sequence[str]],
    measurements: Sequence[Measurement],
    settings: Captions,
) -> Caption:
    """Compose tags into a caption.

    Args:
        tags: Normalised tags by the family whose question they answer. A tag with a known facet is
            moved to the facet's family.
        measurements: Measurements that the tags must not contradict.
        settings: The section `captions` of the workspace's settings.

    Returns:
        The caption.
    """
    vocabulary = load_vocabulary()
    placed = _place_tags(tags, settings)
    distinct = _drop_near_duplicates([tag for _, tag in placed])

    contradictions = _find_contradictions(distinct, measurements)
    excluded: set[str] = set()
    if settings.contradictions == "leave out":
        excluded = {contradiction.tag for contradiction in contradictions}
    remaining = [tag for tag in distinct if tag not in excluded]
    kept, cut = truncate_tags(remaining, count_tokens, _least_important_index)

    # The same unknown tag may answer both questions. With `reversed`, its first occurrence decides.
    family_of = {tag: family for family, tag in reversed(placed)}
    return Caption(
        semantic=[tag for tag in kept if family_of[tag] == "semantic"],
        photographic=[tag for tag in kept if family_of[tag] == "photographic"],
        unknown=[tag for tag in kept if vocabulary.find_facet(tag) is None],
        cut=cut,
        contradictions=contradictions,
    )


def _place_tags(
    tags: Mapping[Family, Sequence[str]], settings: Captions
) -> list[tuple[Family, str]]:
    """Strip sensitive words, assign every tag to a family, and sort by family and facet."""
    vocabulary = load_vocabulary()
    placed: list[tuple[Family, str]] = []
    for question_family, family_tags in tags.items():
        for original_tag in family_tags:
            tag = strip_sensitive(original_tag, settings.sensitive)
            if not tag or tag in vocabulary.hidden_tags:
                continue
            facet = vocabulary.find_facet(tag)
            if facet is None:
                placed.append((question_family, tag))
            elif facet.name != AGE_FACET or "age" in settings.sensitive:
                placed.append((facet.family, tag))

    rank_of = {facet.name: rank for rank, facet in enumerate(vocabulary.facets)}

    def sort_key(family_and_tag: tuple[Family, str]) -> tuple[bool, int]:
        family, tag = family_and_tag
        rank = rank_of.get(vocabulary.facet_name(tag), len(rank_of))  # unknown tags come last
        return family == "photographic", rank

    return sorted(placed, key=sort_key)


def _drop_near_duplicates(tags: Sequence[str]) -> list[str]:
    """Drop tags with a more specific tag in their facet, and all but the first near-duplicate.

    "hair" is dropped if "long black hair" is present. Of "red rose" and "red roses", the first is
    kept.
    """
    vocabulary = load_vocabulary()
    facet_of = {tag: vocabulary.facet_name(tag) for tag in tags}
    stems_of = {tag: _word_stems(tag) for tag in tags}

    def is_less_specific(tag: str, other: str) -> bool:
        return (
            facet_of[tag] == facet_of[other]
            and stems_of[tag] < stems_of[other]
            and not vocabulary.are_exclusive(tag, other)
        )

    def is_near_duplicate(tag: str, other: str) -> bool:
        if stems_of[tag] == stems_of[other]:
            return True
        if facet_of[tag] != facet_of[other]:
            return False
        return difflib.SequenceMatcher(None, tag, other).ratio() >= NEAR_DUPLICATE_RATIO

    kept: list[str] = []
    for tag in dict.fromkeys(tags):
        if any(is_less_specific(tag, other) for other in tags if other != tag):
            continue
        if not any(is_near_duplicate(tag, other) for other in kept):
            kept.append(tag)
    return kept


def _word_stems(tag: str) -> frozenset[str]:
    """Return the words of a tag without the plural s."""
    return frozenset(word.rstrip("s") for word in tag.replace("-", " ").split())


def _find_contradictions(
    tags: Sequence[str], measurements: Sequence[Measurement]
) -> list[Contradiction]:
    """Find the tags that a confident measurement or an earlier accepted tag excludes."""
    vocabulary = load_vocabulary()
    confident = [item for item in measurements if item.confidence >= HIGH_CONFIDENCE]
    contradictions = []
    accepted: list[str] = []
    for tag in tags:
        measurement = next(
            (item for item in confident if vocabulary.are_exclusive(tag, item.tag)), None
        )
        earlier_tag = next(
            (other for other in accepted if vocabulary.are_exclusive(tag, other)), None
        )
        if measurement is not None:
            confidence = round(measurement.confidence, 3)
            contradictions.append(Contradiction(tag, measurement.tag, confidence))
        elif earlier_tag is not None:
            contradictions.append(Contradiction(tag, earlier_tag, None))
        else:
            accepted.append(tag)
    return contradictions


def _least_important_index(tags: list[str]) -> int:
    """Return the index of the tag to cut first.

    Unknown tags come first, then those of the least important facet. Of several, the last is cut.
    """
    vocabulary = load_vocabulary()
    rank_of = {name: rank for rank, name in enumerate(vocabulary.cut_first)}
    rank_of[UNKNOWN] = -1
    ranks = [rank_of[vocabulary.facet_name(tag)] for tag in tags]
    lowest = min(ranks)
    return max(index for index, rank in enumerate(ranks) if rank == lowest)
