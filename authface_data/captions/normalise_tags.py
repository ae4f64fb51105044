"""From a model's words to tags: split, stripped of openers, prepositions and adverbs, synonyms made one.

Models are asked for tags and give sentences, labels, bullets, "image of", loops. What can be read as a tag is; the rest is
left to the raw answer, which is stored beside them.
"""

from __future__ import annotations

import itertools
import json
import re

from authface_data.captions.vocabulary import Vocabulary, load_vocabulary

MOST_WORDS_OF_A_PIECE = 8  # more is a sentence
SENTENCE = frozenset(["she", "he", "it", "they", "i", "there", "this", "these", "who", "which"])
FENCE = re.compile(r"^\s*```\w*|```\s*$")
BULLET = re.compile(r"^\s*(?:[-*•–]+|\d+[.)])\s*")


def parse_tags(answer: str, max_words: int = 5) -> list[str]:
    """The tags of an answer, in lower case, in order, each once. One of more than `max_words` words is dropped."""
    words = load_vocabulary()
    tags: dict[str, None] = {}
    for line in _plain(answer).lower().splitlines():
        for piece in re.split(r"[,;|]|\.\s|\.$", _without_opener(BULLET.sub("", line), words)):
            tags.update(
                dict.fromkeys(tag for tag in _read(piece, words) if len(tag.split()) <= max_words)
            )
    return list(tags)


def _plain(answer: str) -> str:
    """The answer with one tag a line where it is JSON, be it cut off; as it is where it is text."""
    body = FENCE.sub("", answer).strip()
    if not body.startswith(("{", "[")):
        return body
    try:
        return "\n".join(_strings(json.loads(body)))
    except ValueError:
        return "\n".join(
            text for text, key in re.findall(r'"((?:[^"\\]|\\.)*)"\s*(:?)', body) if not key
        )


def _strings(value: object) -> list[str]:
    """All texts in a JSON value, in order; names of fields are none."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in _strings(part)]


def _without_opener(line: str, words: Vocabulary) -> str:
    line = line.strip(" \"'*:")
    for opener in words.openers:
        if line.startswith(opener) and not line[len(opener) :][:1].isalnum():
            return _without_opener(line[len(opener) :].lstrip(" :,"), words)
    return line


def _read(piece: str, words: Vocabulary) -> list[str]:
    piece = _without_opener(
        " ".join(BULLET.sub("", piece).replace("&", "and").split()), words
    ).strip(" .\"'*_#()[]{}")
    label, colon, value = (part.strip(" *_") for part in piece.partition(":"))
    if colon:
        return _labelled(label, value, words)
    if piece in words.synonyms:
        return [words.synonyms[piece]]
    said = piece.split()
    if not said or len(said) > MOST_WORDS_OF_A_PIECE or said[0] in SENTENCE:
        return []
    if not words.splits.isdisjoint(said):
        return [tag for part in _parts(said, words.splits) for tag in _read(part, words)]
    plain = [word for word in said if word not in words.fillers and not _is_adverb(word, words)]
    if (tag := " ".join(plain)) in words.synonyms:
        return [words.synonyms[tag]]
    if not words.prepositions.isdisjoint(plain):
        # What stood between prepositions is a tag only where it means something by itself.
        tags = [words.synonyms.get(part, part) for part in _parts(plain, words.prepositions)]
        return [
            tag for tag in tags if words.facet_of(tag) is not None and tag not in words.says_nothing
        ]
    return [tag] if tag and tag not in words.says_nothing else []


def _labelled(label: str, value: str, words: Vocabulary) -> list[str]:
    """ "Expression: neutral" is "neutral expression"; "Hair: long black hair" needs no label."""
    for way in (value, f"{value} {label}", f"{label} {value}"):
        if way in words.synonyms:
            return [words.synonyms[way]]
    tags = _read(value, words)
    return tags if all(words.facet_of(tag) for tag in tags) else _read(f"{value} {label}", words)


def _parts(said: list[str], between: frozenset[str]) -> list[str]:
    """The runs of words between those of a kind."""
    runs = itertools.groupby(said, key=lambda word: word in between)
    return [" ".join(run) for is_between, run in runs if not is_between]


def _is_adverb(word: str, words: Vocabulary) -> bool:
    return word in words.adverbs or (word.endswith("ly") and word not in words.not_adverbs)
