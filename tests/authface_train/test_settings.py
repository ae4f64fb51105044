"""Presets, `--set` options and the derived accumulation."""

import pytest

from authface_train.presets import load_preset, parse_set_option
from authface_train.training.loop import accumulation_steps
from manifests.support.errors import UserError


def test_preset_paper_has_the_numbers_of_the_paper():
    prior = load_preset("prior", "paper")
    assert prior.base == "stabilityai/stable-diffusion-xl-base-1.0"
    assert prior.resolution_px == 1024
    assert prior.steps == 50_000
    assert prior.batch == 96
    assert prior.learning_rate == 5e-7
    assert prior.source is None, "portraits, unless there is only FFHQ"

    restorer = load_preset("restorer", "paper")
    assert restorer.resolution_px == 512
    assert restorer.batch == 48
    assert restorer.learning_rate == 2e-5
    assert restorer.source == "ffhq"
    assert restorer.facial.weight == "time-aware"
    assert (restorer.facial.m, restorer.facial.s) == (-0.5, 1.0)
    assert restorer.facial.reduction == "region-sum"


def test_facial_loss_starts_at_the_documented_steps():
    facial = load_preset("restorer", "paper").facial
    assert facial.start_step == 5000
    assert facial.discriminator_only_steps == 1000
    assert facial.ramp_steps == 2000


def test_set_options_reach_nested_settings():
    options = ["facial.weight=off", "steps=3", "betas=[0.8, 0.9]", "learning_rate=1e-3"]
    settings = load_preset("restorer", "tiny", dict(map(parse_set_option, options)))
    assert settings.facial.weight == "off"
    assert settings.steps == 3
    assert settings.betas == (0.8, 0.9)
    assert settings.learning_rate == 1e-3


def test_overrides_keep_their_type():
    assert load_preset("prior", "tiny", {"base": "2026"}).base == "2026"


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("steps=3", ("steps", 3)),
        ("audit = false", ("audit", False)),
        ("base=some/model", ("base", "some/model")),
        ("base='2026'", ("base", "2026")),
        ("draw.prompts=['a=b']", ("draw.prompts", ["a=b"])),
    ],
)
def test_set_option_is_a_toml_value_or_a_string(option, expected):
    assert parse_set_option(option) == expected


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ("prior", ["stpes=3"], "unknown setting stpes; did you mean steps[?]"),
        ("restorer", ["facial.wieght=off"], "facial.wieght; did you mean facial.weight[?]"),
        ("restorer", ["weight=off"], "unknown setting weight; did you mean facial.weight[?]"),
        ("restorer", ["stpes=3", "betas=[2, 3]"], "did you mean steps"),
        ("prior", ["steps"], "key=value"),
        ("prior", ["steps=-1"], "steps"),
        ("restorer", ["facial.weight=sometimes"], "facial.weight"),
        ("prior", ["steps.foo=3"], "is a value, not a group of settings"),
        ("prior", ["betas=[2, 3]"], "betas"),
    ],
)
def test_invalid_option_is_refused_by_name(stage, options, message):
    with pytest.raises(UserError, match=message):
        load_preset(stage, "tiny", dict(map(parse_set_option, options)))


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UserError, match=r'unknown preset "papper"; did you mean paper\?'):
        load_preset("prior", "papper")


@pytest.mark.parametrize(
    ("num_processes", "micro_batch", "expected"), [(1, 8, 12), (4, 8, 3), (8, 12, 1), (1, 500, 1)]
)
def test_accumulation_follows_from_the_global_batch(num_processes, micro_batch, expected):
    settings = load_preset("prior", "paper", {"micro_batch": micro_batch})
    assert accumulation_steps(settings, num_processes) == expected


def test_micro_batch_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(UserError, match="micro_batch"):
        accumulation_steps(load_preset("prior", "paper", {"micro_batch": 7}), 1)
