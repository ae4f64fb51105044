"""Captions composed again from stored answers, and the counts of their tags."""

import captioned_workspace
import pytest
from captioned_workspace import ANSWERS, FRONT_VIEW, captions_in_use, face_id

from authface_data.captions.coverage import count_contradictions, count_facets
from authface_data.captions.recompose import recompose
from manifests.schema import CAPTIONS
from manifests.settings import load_settings, preset_text
from manifests.store import Store


@pytest.fixture
def captioned(workspace):
    captioned_workspace.fill(workspace)
    return workspace


def test_captions_follow_settings_and_measurements(captioned):
    assert captions_in_use(captioned) == {
        "a": "young asian woman, long black hair, soft light",
        "b": "man, beard, zebra, front view, black and white",
        "c": "woman, beard, smile",
    }
    assert recompose(captioned) == 0

    text = preset_text("embedded").replace(
        "[captions]", '[captions]\nsensitive = []\ncontradictions = "keep"\nmax_words = 3'
    )
    captioned.settings = load_settings(text.encode(), "test")
    assert recompose(captioned) == 3
    captions = captions_in_use(captioned)
    assert captions["a"] == "person, long black hair, soft light, profile view"
    assert captions["b"] == "person, beard, zebra, front view, black and white"

    rows = Store(captioned, CAPTIONS).read().to_pylist()
    llava_rows = {row["face_id"]: row for row in rows if row["captioner"] == "llava"}
    assert len(llava_rows) == 3
    for name, answers in ANSWERS.items():
        row = llava_rows[face_id(name)]
        assert row["fingerprint"] == "f"
        assert row["raw_answers"] == answers


def test_new_measurement_removes_contradicting_tags(captioned):
    colour = {"facet": "colour", "tag": "colour photograph", "value": 30.0, "confidence": 0.9}
    row = {
        "face_id": "fs_b_1",
        "captioner": "measured",
        "measurements": [FRONT_VIEW, colour],
        "fingerprint": "g",
    }
    Store(captioned, CAPTIONS).append([row])
    recompose(captioned)
    assert captions_in_use(captioned)["b"] == "man, beard, zebra, front view"
    counts = {
        (item.captioner, item.tag, item.against, item.count)
        for item in count_contradictions(captioned)
    }
    assert counts == {
        ("llava", "profile view", "front view", 1),
        ("llava", "black and white", "colour photograph", 1),
    }


def test_facets_are_counted(captioned):
    facets = {(facet.facet, facet.family): facet for facet in count_facets(captioned)}
    face_hair = facets["face hair", "semantic"]
    assert face_hair.tags == [("beard", 2)]
    assert (face_hair.faces, face_hair.of) == (2, 3)
    assert facets["unknown", "semantic"].tags == [("zebra", 1)]
    assert facets["camera", "photographic"].faces == 0
    assert count_facets(captioned, {"fs_c_1"})[0].of == 1
