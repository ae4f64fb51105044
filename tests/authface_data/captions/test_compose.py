"""Composition of captions: order, contradictions, sensitive attributes and length."""

import itertools

import pytest

from authface_data.captions.compose import (
    caption_from_answers,
    compose_caption,
    count_tokens,
    sdxl_tokenizers,
)
from authface_data.captions.measured.measurement import Measurement
from authface_data.captions.vocabulary import load_vocabulary
from manifests.settings import Captions

SETTINGS = Captions()


def measurement(tag, confidence=0.95, facet="view"):
    return Measurement(facet, tag, 1.0, confidence)


def test_tags_are_ordered_by_family_and_facet():
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
    ("answer", "expected"),
    [
        ("woman, asian woman", ["asian woman"]),
        ("black hair, long black hair, hair", ["long black hair"]),
        ("earring, earrings", ["earrings"]),
        ("red roses, red rose", ["red roses"]),
        ("broad-smile, broad smile, smile", ["broad-smile"]),
        # Nothing shows which of two exclusive tags is true: the first is kept.
        ("hard light, soft light", ["hard light"]),
    ],
)
def test_near_duplicates_are_dropped(answer, expected):
    caption = caption_from_answers(answer, "", [], SETTINGS)
    assert [*caption.semantic, *caption.photographic] == expected


def test_tags_contradicting_a_confident_measurement_are_recorded_and_left_out():
    measurements = [
        measurement("front view"),
        measurement("colour photograph", facet="colour"),
        measurement("sharp background", facet="focus"),
    ]
    answer = "profile view, black and white, bokeh, low-key"
    caption = caption_from_answers("woman", answer, measurements, SETTINGS)
    assert caption.photographic == ["low-key"]
    assert {(item.tag, item.against) for item in caption.contradictions} == {
        ("profile view", "front view"),
        ("black and white", "colour photograph"),
        ("blurred background", "sharp background"),
    }

    caption = caption_from_answers("woman", answer, measurements, Captions(contradictions="keep"))
    assert set(caption.photographic) == {
        "profile view",
        "black and white",
        "blurred background",
        "low-key",
    }
    assert len(caption.contradictions) == 3


def test_uncertain_measurement_contradicts_nothing():
    measurements = [measurement("front view", 0.79)]
    caption = caption_from_answers("woman", "profile view", measurements, SETTINGS)
    assert caption.photographic == ["profile view"]
    assert caption.contradictions == []


def test_contradictory_answer_keeps_the_measured_tag_or_the_first():
    answer = "front view, profile view"
    caption = caption_from_answers("", answer, [], SETTINGS)
    assert caption.photographic == ["front view"]
    assert [(item.tag, item.against, item.confidence) for item in caption.contradictions] == [
        ("profile view", "front view", None)
    ]
    caption = caption_from_answers("", answer, [measurement("profile view")], SETTINGS)
    assert caption.photographic == ["profile view"]


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (["age", "ethnicity", "gender"], "asian woman, elderly, 60s, black hair, smile"),
        (["gender"], "woman, black hair, smile"),
        (["age", "gender"], "woman, elderly, 60s, black hair, smile"),
        (["ethnicity"], "asian person, black hair, smile"),
        ([], "person, black hair, smile"),
    ],
)
def test_sensitive_attributes_are_removed_unless_allowed(allowed, expected):
    caption = caption_from_answers(
        "asian woman, elderly, black hair, 60s", "smile", [], Captions(sensitive=allowed)
    )
    assert caption.text == expected


def test_long_caption_loses_whole_tags_of_the_least_important_facets():
    accessories = [
        f"{colour} {item}"
        for colour, item in itertools.product(
            ("red", "blue", "green", "golden", "purple"), ("scarf", "hat", "necklace")
        )
    ]
    animals = ["grumpy wombat", "quick ocelot"]
    tags = {
        "semantic": ["woman", "black hair", *accessories, *animals],
        "photographic": [
            "smile",
            "soft light",
            "studio portrait",
            "shiny lens",
            "wide aperture",
            "pale blue tones",
            "front view",
            "green palette",
            "strange angle",
            "odd crop",
            "crisp bokeh",
            "faint stare",
        ],
    }
    caption = compose_caption(tags, [], SETTINGS)
    kept = [*caption.semantic, *caption.photographic]
    assert count_tokens(caption.text) <= 77
    assert {"woman", "black hair", "smile", "soft light"} <= set(kept)
    assert {*caption.cut, *kept} == {*tags["semantic"], *tags["photographic"]}

    vocabulary = load_vocabulary()
    order = ["unknown", *vocabulary.cut_first]
    ranks = [order.index(vocabulary.facet_name(tag)) for tag in caption.cut]
    assert ranks == sorted(ranks)
    assert caption.cut[0] == "quick ocelot"  # the last of several unknown tags
    assert len(set(ranks)) > 2
    # No more tags are cut than necessary.
    assert count_tokens(", ".join([*kept, caption.cut[-1]])) > 77


def test_columns_of_a_caption():
    measurements = [measurement("colour photograph", facet="colour")]
    caption = caption_from_answers("woman, zebra", "black and white", measurements, SETTINGS)
    assert caption.columns() == {
        "semantic_tags": ["woman", "zebra"],
        "photographic_tags": [],
        "unknown_tags": ["zebra"],
        "cut_tags": [],
        "contradictions": [
            {"tag": "black and white", "against": "colour photograph", "confidence": 0.95}
        ],
        "caption": "woman, zebra",
        "token_count": 5,
    }


def test_tokens_are_counted_by_both_sdxl_tokenizers():
    """The ids and counts are those of CLIP's own tokenizer: <start> a photo of a cat <end>."""
    first, second = sdxl_tokenizers()
    for tokenizer in (first, second):
        assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (first.pad_token, second.pad_token) == ("<|endoftext|>", "!")
    assert count_tokens("") == 2
    assert count_tokens("word " * 100) == 102  # counting must not truncate
