"""Parses the answers of captioning models into normalised tags.

Models are prompted for tags but also return sentences, labels, bullet lists, JSON and repetitions.
Everything that can be read as a tag is kept. Introductions, prepositions and adverbs are removed,
and synonyms are replaced by their canonical tag. The raw answer is stored with the tags, so the
rules can change later.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from authface_data.captions.vocabulary import SensitiveAttribute, Vocabulary, load_vocabulary
from manifests.support.parsing import parse_json

MAX_PHRASE_WORDS = 8
"""A longer phrase is treated as a sentence, which gives no tags."""

SENTENCE_STARTS = frozenset(
    ["she", "he", "it", "they", "i", "there", "this", "these", "who", "which"]
)
CODE_FENCE = re.compile(r"^\s*```\w*|```\s*$")
BULLET = re.compile(r"^\s*(?:[-*•–]+|\d+[.)])\s*")
PHRASE_BOUNDARY = re.compile(r"[,;|]|\.\s|\.$")
JSON_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(:?)')


def parse_tags(answer: str, max_words: int = 5) -> list[str]:
    """Parse the answer of a model.

    Args:
        answer: Free text, a list, or JSON, which may be cut off.
        max_words: Tags with more words are dropped.

    Returns:
        The tags in lower case, in order of first appearance, without repetitions.
    """
    vocabulary = load_vocabulary()
    tags: dict[str, None] = {}
    for line in _unwrap_json(answer).lower().splitlines():
        text = _strip_opener(BULLET.sub("", line), vocabulary)
        for phrase in PHRASE_BOUNDARY.split(text):
            for tag in _parse_phrase(phrase, vocabulary):
                if len(tag.split()) <= max_words:
                    tags[tag] = None
    return list(tags)


def strip_sensitive(tag: str, allowed: Sequence[SensitiveAttribute]) -> str:
    """Remove the words of a tag that reveal a sensitive attribute.

    Args:
        tag: A normalised tag.
        allowed: The attributes that captions may mention.

    Returns:
        The tag with neutral words in place of the sensitive ones ("woman" becomes "person"), or ""
        if nothing meaningful remains.
    """
    vocabulary = load_vocabulary()
    original_words = tag.split()
    words = original_words
    for attribute, replacements in vocabulary.sensitive.items():
        if attribute not in allowed:
            # A replacement may consist of several words, or of none.
            words = " ".join(replacements.get(word, word) for word in words).split()
    if words == original_words:
        return tag

    stripped = " ".join(words)
    if stripped in vocabulary.meaningless_tags:
        return ""
    return vocabulary.synonyms.get(stripped, stripped)


def _unwrap_json(answer: str) -> str:
    """Put the strings of a JSON answer on one line each; return other answers unchanged."""
    body = CODE_FENCE.sub("", answer).strip()
    if not body.startswith(("{", "[")):
        return body
    try:
        return "\n".join(_collect_strings(parse_json(body)))
    except ValueError:
        # The JSON is cut off: take every complete string that is not a key.
        return "\n".join(text for text, colon in JSON_STRING.findall(body) if not colon)


def _collect_strings(value: object) -> list[str]:
    """Collect all strings in a JSON value in order, without the keys of objects."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list):
        children = value
    else:
        return []
    return [text for child in children for text in _collect_strings(child)]


def _strip_opener(line: str, vocabulary: Vocabulary) -> str:
    """Remove one or several introductions such as "the image shows"."""
    line = line.strip(" \"'*:")
    for opener in vocabulary.openers:
        rest = line[len(opener) :]
        if line.startswith(opener) and not rest[:1].isalnum():
            return _strip_opener(rest.lstrip(" :,"), vocabulary)
    return line


def _parse_phrase(phrase: str, vocabulary: Vocabulary) -> list[str]:
    """Parse one phrase, the text between two commas, into its tags."""
    phrase = " ".join(BULLET.sub("", phrase).replace("&", "and").split())
    phrase = _strip_opener(phrase, vocabulary).strip(" .\"'*_#()[]{}")
    label, colon, value = (part.strip(" *_") for part in phrase.partition(":"))
    if colon:
        return _parse_labelled(label, value, vocabulary)
    if phrase in vocabulary.synonyms:
        return [vocabulary.synonyms[phrase]]

    words = phrase.split()
    if not words or len(words) > MAX_PHRASE_WORDS or words[0] in SENTENCE_STARTS:
        return []
    if not vocabulary.splits.isdisjoint(words):
        parts = _split_at(words, vocabulary.splits)
        return [tag for part in parts for tag in _parse_phrase(part, vocabulary)]

    words = [
        word
        for word in words
        if word not in vocabulary.fillers and not _is_adverb(word, vocabulary)
    ]
    tag = " ".join(words)
    if tag in vocabulary.synonyms:
        return [vocabulary.synonyms[tag]]
    if not vocabulary.prepositions.isdisjoint(words):
        return _parse_prepositional(words, vocabulary)
    return [tag] if tag and tag not in vocabulary.meaningless_tags else []


def _parse_prepositional(words: list[str], vocabulary: Vocabulary) -> list[str]:
    """Keep the parts between prepositions that are known tags by themselves."""
    parts = _split_at(words, vocabulary.prepositions)
    tags = [vocabulary.synonyms.get(part, part) for part in parts]
    return [
        tag
        for tag in tags
        if vocabulary.find_facet(tag) is not None and tag not in vocabulary.meaningless_tags
    ]


def _parse_labelled(label: str, value: str, vocabulary: Vocabulary) -> list[str]:
    """Parse "label: value": "Expression: neutral" becomes "neutral expression".

    "Hair: long black hair" needs no label, because the value is a known tag by itself.
    """
    for wording in (value, f"{value} {label}", f"{label} {value}"):
        if wording in vocabulary.synonyms:
            return [vocabulary.synonyms[wording]]
    tags = _parse_phrase(value, vocabulary)
    if all(vocabulary.find_facet(tag) for tag in tags):
        return tags
    return _parse_phrase(f"{value} {label}", vocabulary)


def _split_at(words: list[str], separators: frozenset[str]) -> list[str]:
    """Split a list of words at separators; the parts are joined by spaces."""
    runs = itertools.groupby(words, key=lambda word: word in separators)
    return [" ".join(run) for is_separator, run in runs if not is_separator]


def _is_adverb(word: str, vocabulary: Vocabulary) -> bool:
    if word in vocabulary.adverbs:
        return True
    return word.endswith("ly") and word not in vocabulary.not_adverbs
