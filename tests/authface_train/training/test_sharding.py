"""Launcher configuration and refused settings. Sharding itself: tests/e2e/test_processes.py."""

import pytest

from authface_train.presets import load_preset
from authface_train.training.sharding import check_distribution, sharding_from_launcher
from manifests.support.errors import UserError

FSDP = {"ACCELERATE_USE_FSDP": "true"}
DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (FSDP, "full"),
        ({**FSDP, "FSDP_RESHARD_AFTER_FORWARD": "false"}, "gradients"),
        ({**FSDP, "FSDP_RESHARD_AFTER_FORWARD": "SHARD_GRAD_OP"}, "gradients"),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, "gradients"),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, "gradients"),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "full"),
    ],
)
def test_launcher_configuration_is_read_once(monkeypatch, environment, expected):
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert sharding_from_launcher() == expected
    assert sharding_from_launcher() is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"step_in_backward": True, "clip_norm": 0}, "works with one process only"),
        ({"sharding": "full", "optimiser": "adamw-8bit"}, "optimiser=adamw"),
        ({"sharding": "gradients", "mixed_precision": "fp16"}, "bf16 or no"),
    ],
)
def test_settings_that_need_one_process_are_refused(overrides, message):
    settings = load_preset("prior", "tiny", overrides)
    with pytest.raises(UserError, match=message):
        check_distribution(settings, num_processes=2)
    check_distribution(settings, num_processes=1)
