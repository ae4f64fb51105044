"""The settings in authface.toml: presets and error messages."""

import pytest

from manifests.settings import Filter, load_settings, override, preset_names, preset_text
from manifests.support.errors import UserError


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_commented(name):
    text = preset_text(name)
    settings = load_settings(text.encode(), name)
    assert settings.gates
    assert text.startswith("#")


def test_embedded_preset_is_as_documented():
    settings = load_settings(preset_text("embedded").encode(), "x")
    assert settings.filter.detector == "retinaface-mobile"
    assert settings.filter.landmarks == "dlib"
    assert settings.filter.size == 512
    assert settings.filter.metrics == ["piqe", "niqe"]
    assert settings.captions.captioner == "measured"
    sizes = [gate for gate in settings.gates if gate.metric == "qsize_px"]
    assert [(gate.op, gate.threshold) for gate in sizes] == [(">=", 224)]
    assert not [gate for gate in settings.gates if gate.metric == "upscaled"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[filter]\ndetectr = 'x'", "unknown setting filter.detectr; did you mean detector?"),
        ("[flter]\nsize = 512", "unknown setting flter; did you mean filter?"),
        ("[[gates]]\nname='a'\nmetric='b'\nop='>='\ntreshold=1", "did you mean threshold?"),
        ("[filter]\nsize = 700", "filter.size"),
        ("[filter", "is not valid TOML"),
        ("# caf\u00e9", "is not valid TOML"),
        ("[splits]\nval = 0.6\ntest = 0.6", "nothing to train on"),
    ],
)
def test_mistake_is_one_line_that_names_the_key(text, message):
    with pytest.raises(UserError) as error:
        load_settings(text.encode("latin-1"), "authface.toml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_override_replaces_given_values_only():
    section = override(Filter(), detector="retinaface-mobile", size=512, metrics=None)
    assert section == Filter(detector="retinaface-mobile", size=512)


def test_override_names_the_option_of_an_invalid_value():
    with pytest.raises(UserError, match=r"--duplicate-radius 99: input should be less than"):
        override(Filter(), duplicate_radius=99)
