"""The vocabulary, and from a model's words to tags."""

import tomllib

import pytest

from authface_data.captions.normalise_tags import parse_tags
from authface_data.captions.vocabulary import load_vocabulary, vocabulary_text

PAPER = (
    "Asian Female, Floral Headpiece, Yellow Roses, Neutral Makeup, Black Hair, Close-Up, Serious Expression, Studio Lighting, "
    "High-Resolution Image, Gray Background, Natural Skin Tone, Focused Gaze, Slight Shadow, Sharp Focus, Face Shot"
)


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        ("Close up, Frontal View, bokeh.", ["close-up", "front view", "blurred background"]),
        ("The image shows a woman, red hat; Red Hat,  red   hat", ["woman", "red hat"]),
        ("- sharp\n- soft light", ["sharp focus", "soft light"]),
        ("1. Expression: neutral\n2. Gaze: looking directly at the camera\n3) **Lighting**: soft natural light",
         ["neutral expression", "direct gaze", "soft light"]),
        ("Hair: long black hair, Focus: on the eyes", ["long black hair", "sharp eyes"]),
        ("woman with long hair, man wearing a hat and glasses", ["woman", "long hair", "man", "hat", "glasses"]),
        ("hair in a bun, image of a man, woman in red dress", ["bun", "man", "woman", "red dress"]),
        ("softly blurred background, very long hair, curly hair, slightly tilted head",
         ["blurred background", "long hair", "curly hair", "tilted head"]),
        ("She is looking away from the camera into the distance, smile", ["smile"]),
        ("woman, woman, woman, woman, woman", ["woman"]),
        ("long straight very dark brown shiny silky hair", []),
        ('{"tags": ["Woman", "black & white", "eyes closed"]}', ["woman", "black and white", "closed eyes"]),
        ('```json\n{"tags": ["woman", "hat"]}\n```', ["woman", "hat"]),
        ('{"tags": ["woman", "long hair", "blu', ["woman", "long hair"]),
        ("tagsale shirt, sureness look", ["tagsale shirt", "sureness look"]),
        ("hair, expression, lighting, view", []),
        ("", []),
        (" , ,. ", []),
    ],
)  # fmt: skip
def test_tags_of(answer, tags):
    assert parse_tags(answer) == tags


def test_the_papers_caption_is_read():
    words = load_vocabulary()
    tags = parse_tags(PAPER)
    assert len(tags) == 14  # close-up and face shot are one
    assert all(words.facet_of(tag) is not None for tag in tags)
    assert {words.facet_name(tag) for tag in tags} == {
        "person", "accessories", "makeup", "hair", "framing", "expression", "light", "style", "background", "skin texture",
        "gaze", "focus",
    }  # fmt: skip


def test_a_tag_of_more_words_than_allowed_is_none():
    assert parse_tags("dark brown hair, very long dark brown hair", max_words=3) == ["dark brown hair"]


def test_no_synonym_means_two_things():
    said = [
        word
        for facet in tomllib.loads(vocabulary_text())["facet"]
        for tag, own in facet["tags"].items()
        for word in [tag, *own]
    ]
    assert [word for word in said if said.count(word) > 1] == []
    assert len(said) == len(load_vocabulary().synonyms)


def test_the_vocabulary_is_in_order():
    """Every facet can be cut, every exclusive tag is one of its facet, no canonical tag holds a preposition or an adverb."""
    words = load_vocabulary()
    assert sorted(words.cut_first) == sorted(facet.name for facet in words.facets)
    families = [facet.family for facet in words.facets]
    assert families == sorted(families, reverse=True)  # semantic first
    for facet in words.facets:
        for group in facet.exclusive:
            assert group <= facet.tags, facet.name
        for tag in facet.tags:
            assert not set(tag.split()) & words.prepositions, tag
            assert len(tag.split()) <= 5
            assert words.facet_of(tag) == facet
            assert parse_tags(tag) == [tag] or tag in words.says_nothing


@pytest.mark.parametrize(
    ("tag", "facet"),
    [("long black hair", "hair"), ("ISO 400", "camera"), ("f/1.8", "camera"), ("85mm lens", "camera"), ("30s", "age band"),
     ("thoughtful expression", "expression"), ("zebra", "unknown")],
)  # fmt: skip
def test_other_tags_are_placed_by_their_last_word_or_pattern(tag, facet):
    assert load_vocabulary().facet_name(tag) == facet


def test_what_excludes_each_other():
    words = load_vocabulary()
    assert words.exclude("front view", "profile view")
    assert words.exclude("black and white", "colour photograph")
    assert words.exclude("blurred background", "sharp background")
    assert not words.exclude("front view", "front view")
    assert not words.exclude("front view", "low-key")
    assert not words.exclude("zebra", "front view")
