"""Presets and --set."""

import pytest

from authface_train.presets import load_preset, parse_set_option
from authface_train.training.loop import accumulation_steps
from manifests.support.errors import UserError


def test_the_papers_numbers():
    prior, restorer = load_preset("prior", "paper"), load_preset("restorer", "paper")
    assert (prior.resolution_px, prior.steps, prior.batch, prior.learning_rate) == (
        1024,
        50_000,
        96,
        5e-7,
    )
    assert prior.base == "stabilityai/stable-diffusion-xl-base-1.0"
    assert (restorer.resolution_px, restorer.batch, restorer.learning_rate) == (512, 48, 2e-5)
    assert (restorer.facial.weight, restorer.facial.m, restorer.facial.s) == (
        "time-aware",
        -0.5,
        1.0,
    )
    assert (
        restorer.facial.start_step,
        restorer.facial.discriminator_only_steps,
        restorer.facial.ramp_steps,
    ) == (
        5000,
        1000,
        2000,
    )


def test_set_reaches_nested_settings():
    made = load_preset(
        "restorer",
        "tiny",
        {"facial.weight": 'off', "steps": 3, "betas": [0.8, 0.9], "learning_rate": 0.001},
    )
    assert (made.facial.weight, made.steps, made.betas, made.learning_rate) == (
        "off",
        3,
        (0.8, 0.9),
        1e-3,
    )


@pytest.mark.parametrize(
    ("stage", "changes", "words"),
    [
        ("prior", ["stpes=3"], "stpes"),
        ("prior", ["steps"], "key=value"),
        ("prior", ["steps=-1"], "steps"),
        ("restorer", ["facial.weight=sometimes"], "facial.weight"),
        ("prior", ["steps.foo=3"], "is a value, not a group of settings"),
        ("prior", ["betas=[2, 3]"], "betas"),
    ],
)
def test_mistakes_name_the_setting(stage, changes, words):
    with pytest.raises(UserError, match=words):
        load_preset(stage, "tiny", dict(map(parse_set_option, changes)))


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(UserError, match="paper, tiny"):
        load_preset("prior", "papper")


@pytest.mark.parametrize(
    ("world", "micro", "pieces"), [(1, 8, 12), (4, 8, 3), (8, 12, 1), (1, 500, 1)]
)
def test_accumulation_follows_from_the_global_batch(world, micro, pieces):
    assert (
        accumulation_steps(load_preset("prior", "paper", {"micro_batch": micro}), world) == pieces
    )


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="micro_batch"):
        accumulation_steps(load_preset("prior", "paper", {"micro_batch": 7}), 1)
