"""What launchers ask for, and what does not go with several processes. The division itself: tests/e2e/test_processes.py."""

import pytest
import torch

from authface_train.presets import load_preset, parse_set_option
from authface_train.training.sharding import distribute_model, sharding_from_launcher
from manifests.support.errors import UserError


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, None),
        ({"ACCELERATE_USE_FSDP": "true"}, "full"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_RESHARD_AFTER_FORWARD": "false"}, "gradients"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_RESHARD_AFTER_FORWARD": "SHARD_GRAD_OP"},
            "gradients",
        ),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, "gradients"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, "gradients"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "full"),
    ],
)
def test_a_launchers_wish_is_taken_out_of_its_hands(monkeypatch, environment, asked):
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert sharding_from_launcher() == asked
    assert sharding_from_launcher() is None


class Several:
    num_processes = 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["step_in_backward=true", "clip_norm=0"], "works with one process only"),
        (["sharding=full", "optimiser=adamw-8bit"], "optimiser=adamw"),
        (["sharding=gradients", "mixed_precision=fp16"], "bf16 or no"),
    ],
)
def test_what_does_not_go_with_several_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        distribute_model(
            torch.nn.Linear(2, 2), None, load_preset("prior", "tiny", dict(map(parse_set_option, changes))), Several()
        )
