"""A caption from what was said and measured: ordered, true, short enough."""

import itertools

import pytest

from authface_data.captions import tokens
from authface_data.captions.compose import compose_caption, caption_from_answers
from authface_data.captions.measured.measurement import Measurement
from authface_data.captions.vocabulary import load_vocabulary
from manifests.settings import Captions

SETTINGS = Captions()


def fact(tag, confidence=0.95, facet="view"):
    return Measurement(facet, tag, 1.0, confidence)


def test_families_facets_and_order():
    caption = caption_from_answers(
        "blurred background, red dress, smile, woman, zebra",
        "soft light, black hair, giraffe, direct gaze",
        [],
        SETTINGS,
    )
    assert caption.semantic == ["woman", "black hair", "red dress", "zebra"]
    assert caption.photographic == [
        "smile",
        "direct gaze",
        "soft light",
        "blurred background",
        "giraffe",
    ]
    assert caption.text == ", ".join([*caption.semantic, *caption.photographic])
    assert caption.unknown == ["zebra", "giraffe"]


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("woman, asian woman", ["asian woman"]),
        ("black hair, long black hair, hair", ["long black hair"]),
        ("earring, earrings", ["earrings"]),
        ("red roses, red rose", ["red roses"]),
        ("broad-smile, broad smile, smile", ["broad-smile"]),
        (
            "hard light, soft light",
            ["hard light"],
        ),  # which of the two is true is not known: the first that was said
    ],
)
def test_near_duplicates_are_one(said, left):
    caption = caption_from_answers(said, "", [], SETTINGS)
    tags = [*caption.semantic, *caption.photographic]
    assert tags == left


def test_what_contradicts_a_sure_measurement_is_flagged_and_left_out():
    measured = [
        fact("front view"),
        fact("colour photograph", facet="colour"),
        fact("sharp background", facet="focus"),
    ]
    said = "profile view, black and white, bokeh, low-key"
    caption = caption_from_answers("woman", said, measured, SETTINGS)
    assert caption.photographic == ["low-key"]
    assert {(one.tag, one.against) for one in caption.contradictions} == {
        ("profile view", "front view"), ("black and white", "colour photograph"), ("blurred background", "sharp background"),
    }  # fmt: skip
    kept = caption_from_answers("woman", said, measured, Captions(contradictions="keep"))
    assert set(kept.photographic) == {
        "profile view",
        "black and white",
        "blurred background",
        "low-key",
    }
    assert len(kept.contradictions) == 3


def test_what_is_measured_without_confidence_contradicts_nothing():
    caption = caption_from_answers("woman", "profile view", [fact("front view", 0.79)], SETTINGS)
    assert caption.photographic == ["profile view"]
    assert caption.contradictions == []


def test_a_model_that_contradicts_itself():
    caption = caption_from_answers("", "front view, profile view", [], SETTINGS)
    assert caption.photographic == ["front view"]
    assert [(one.tag, one.against, one.confidence) for one in caption.contradictions] == [
        ("profile view", "front view", None)
    ]
    caption = caption_from_answers("", "front view, profile view", [fact("profile view")], SETTINGS)
    assert caption.photographic == ["profile view"]  # what is measured decides


@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        (["age", "ethnicity", "gender"], "asian woman, elderly, 60s, black hair, smile"),
        (["gender"], "woman, black hair, smile"),
        (["age", "gender"], "woman, elderly, 60s, black hair, smile"),
        (["ethnicity"], "asian person, black hair, smile"),
        ([], "person, black hair, smile"),
    ],
)
def test_what_may_be_said_of_a_person_is_a_setting(allowed, text):
    assert (
        caption_from_answers("asian woman, elderly, black hair, 60s", "smile", [], Captions(sensitive=allowed)).text
        == text
    )


def test_too_long_a_caption_loses_whole_tags_of_the_least_important_facets():
    accessories = [
        f"{colour} {what}"
        for colour, what in itertools.product(
            ("red", "blue", "green", "golden", "purple"), ("scarf", "hat", "necklace")
        )
    ]
    animals = ["grumpy wombat", "quick ocelot"]
    said = {
        "semantic": ["woman", "black hair", *accessories, *animals],
        "photographic": ["smile", "soft light", "studio portrait", "shiny lens", "wide aperture", "pale blue tones",
                         "front view", "green palette", "strange angle", "odd crop", "crisp bokeh", "faint stare"],
    }  # fmt: skip
    caption = compose_caption(said, [], SETTINGS)
    assert tokens.count(caption.text) <= 77
    assert {"woman", "black hair", "smile", "soft light"} <= {
        *caption.semantic,
        *caption.photographic,
    }
    assert {*caption.cut, *caption.semantic, *caption.photographic} == {
        *said["semantic"],
        *said["photographic"],
    }
    words = load_vocabulary()
    ranks = [(["unknown", *words.cut_first]).index(words.facet_name(tag)) for tag in caption.cut]
    assert ranks == sorted(ranks)
    assert caption.cut[0] == "quick ocelot"  # of several, the last
    assert len(set(ranks)) > 2
    one_more = [*caption.semantic, *caption.photographic, caption.cut[-1]]
    assert tokens.count(", ".join(one_more)) > 77  # no more was cut than had to be


def test_columns():
    row = caption_from_answers(
        "woman, zebra", "black and white", [fact("colour photograph", facet="colour")], SETTINGS
    ).columns()
    assert row == {
        "semantic_tags": ["woman", "zebra"], "photographic_tags": [], "unknown_tags": ["zebra"], "cut_tags": [],
        "contradictions": [{"tag": "black and white", "against": "colour photograph", "confidence": 0.95}],
        "caption": "woman, zebra", "token_count": 5,
    }  # fmt: skip


def test_both_of_sdxls_tokenizers_count():
    """Ids and counts of CLIP's own tokenizer: <start> a photo of a cat <end>."""
    first, second = tokens.tokenizers()
    for tokenizer in (first, second):
        assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (first.pad_token, second.pad_token) == ("<|endoftext|>", "!")
    assert tokens.count("") == 2
    assert tokens.count("word " * 100) == 102  # not truncated: the cut must never fall silently
