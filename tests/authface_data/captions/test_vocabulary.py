"""The vocabulary, and the parsing of answers into tags."""

import tomllib

import pytest

from authface_data.captions.normalise_tags import parse_tags
from authface_data.captions.vocabulary import load_vocabulary, vocabulary_text

PAPER_CAPTION = (
    "Asian Female, Floral Headpiece, Yellow Roses, Neutral Makeup, Black Hair, Close-Up, "
    "Serious Expression, Studio Lighting, High-Resolution Image, Gray Background, "
    "Natural Skin Tone, Focused Gaze, Slight Shadow, Sharp Focus, Face Shot"
)


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        ("Close up, Frontal View, bokeh.", ["close-up", "front view", "blurred background"]),
        ("The image shows a woman, red hat; Red Hat,  red   hat", ["woman", "red hat"]),
        ("- sharp\n- soft light", ["sharp focus", "soft light"]),
        (
            "1. Expression: neutral\n2. Gaze: looking directly at the camera\n"
            "3) **Lighting**: soft natural light",
            ["neutral expression", "direct gaze", "soft light"],
        ),
        ("Hair: long black hair, Focus: on the eyes", ["long black hair", "sharp eyes"]),
        (
            "woman with long hair, man wearing a hat and glasses",
            ["woman", "long hair", "man", "hat", "glasses"],
        ),
        ("hair in a bun, image of a man, woman in red dress", ["bun", "man", "woman", "red dress"]),
        (
            "softly blurred background, very long hair, curly hair, slightly tilted head",
            ["blurred background", "long hair", "curly hair", "tilted head"],
        ),
        ("She is looking away from the camera into the distance, smile", ["smile"]),
        ("woman, woman, woman, woman, woman", ["woman"]),
        ("long straight very dark brown shiny silky hair", []),
        (
            '{"tags": ["Woman", "black & white", "eyes closed"]}',
            ["woman", "black and white", "closed eyes"],
        ),
        ('```json\n{"tags": ["woman", "hat"]}\n```', ["woman", "hat"]),
        ('{"tags": ["woman", "long hair", "blu', ["woman", "long hair"]),
        ("tagsale shirt, sureness look", ["tagsale shirt", "sureness look"]),
        ("hair, expression, lighting, view", []),
        ("", []),
        (" , ,. ", []),
    ],
)
def test_parse_tags(answer, tags):
    assert parse_tags(answer) == tags


def test_caption_of_the_paper_is_parsed():
    vocabulary = load_vocabulary()
    tags = parse_tags(PAPER_CAPTION)
    assert len(tags) == 14  # "close-up" and "face shot" are synonyms
    assert all(vocabulary.find_facet(tag) is not None for tag in tags)
    assert {vocabulary.facet_name(tag) for tag in tags} == {
        "person",
        "accessories",
        "makeup",
        "hair",
        "framing",
        "expression",
        "light",
        "style",
        "background",
        "skin texture",
        "gaze",
        "focus",
    }


def test_tags_with_too_many_words_are_dropped():
    answer = "dark brown hair, very long dark brown hair"
    assert parse_tags(answer, max_words=3) == ["dark brown hair"]


def test_synonyms_are_unambiguous():
    wordings = []
    for facet in tomllib.loads(vocabulary_text())["facet"]:
        for tag, alternatives in facet["tags"].items():
            wordings += [tag, *alternatives]
    assert [wording for wording in wordings if wordings.count(wording) > 1] == []
    assert len(wordings) == len(load_vocabulary().synonyms)


def test_vocabulary_is_consistent():
    """Every facet can be cut, exclusive tags belong to their facet, canonical tags are stable."""
    vocabulary = load_vocabulary()
    assert sorted(vocabulary.cut_first) == sorted(facet.name for facet in vocabulary.facets)
    families = [facet.family for facet in vocabulary.facets]
    assert families == sorted(families, reverse=True)  # semantic facets come first
    for facet in vocabulary.facets:
        for group in facet.exclusive:
            assert group <= facet.tags, facet.name
        for tag in facet.tags:
            assert not set(tag.split()) & vocabulary.prepositions, tag
            assert len(tag.split()) <= 5
            assert vocabulary.find_facet(tag) == facet
            assert parse_tags(tag) == [tag] or tag in vocabulary.meaningless_tags


@pytest.mark.parametrize(
    ("tag", "facet"),
    [
        ("long black hair", "hair"),
        ("ISO 400", "camera"),
        ("f/1.8", "camera"),
        ("85mm lens", "camera"),
        ("30s", "age band"),
        ("thoughtful expression", "expression"),
        ("zebra", "unknown"),
    ],
)
def test_facet_of_other_tags_follows_from_last_word_or_pattern(tag, facet):
    assert load_vocabulary().facet_name(tag) == facet


def test_exclusive_tags():
    vocabulary = load_vocabulary()
    assert vocabulary.are_exclusive("front view", "profile view")
    assert vocabulary.are_exclusive("black and white", "colour photograph")
    assert vocabulary.are_exclusive("blurred background", "sharp background")
    assert not vocabulary.are_exclusive("front view", "front view")
    assert not vocabulary.are_exclusive("front view", "low-key")
    assert not vocabulary.are_exclusive("zebra", "front view")
