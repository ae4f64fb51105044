"""From a model's words to tags."""

import tomllib
from importlib import resources

import pytest

from authface_data.captions.vocabulary import synonyms, tags_of


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        ("Close up, Frontal View, bokeh.", ["close-up", "front view", "blurred background"]),
        ("The image shows a woman, red hat; Red Hat,  red   hat", ["woman", "red hat"]),
        ("- sharp\n- soft light", ["sharp focus", "even light"]),
        ("She is looking away from the camera into the distance, smile", ["smile"]),
        ("", []),
        (" , ,. ", []),
    ],
)
def test_tags_of(answer, tags):
    assert tags_of(answer) == tags


def test_no_synonym_means_two_things():
    text = (resources.files("authface_data.captions") / "vocabulary.toml").read_text("utf-8")
    said = [word for facet in tomllib.loads(text)["facet"] for tag, others in facet["tags"].items() for word in [tag, *others]]
    assert len(said) == len(set(said)) == len(synonyms())
