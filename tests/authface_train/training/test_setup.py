"""What is refused before anything is computed or written."""

import importlib.util

import pytest
import torch

from authface_train.models.sdxl import tiny_sdxl
from authface_train.presets import load_preset
from authface_train.training.setup import check_libraries
from manifests.support.errors import MissingResourceError


@pytest.mark.parametrize(
    ("overrides", "library"),
    [
        ({"wandb": True}, "wandb"),
        ({"optimiser": "adamw-8bit"}, "bitsandbytes"),
        ({"optimiser": "adamw-8bit-bf16", "mixed_precision": "bf16"}, "torchao"),
        ({"lora_rank": 4}, "peft"),
    ],
)
def test_missing_library_of_a_setting_is_named(monkeypatch, overrides, library):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == library else find_spec(name)
    )
    check_libraries(load_preset("prior", "tiny", {}))
    with pytest.raises(MissingResourceError, match=f"needs {library}; pip install {library}, or"):
        check_libraries(load_preset("prior", "tiny", overrides))


@pytest.mark.slow
def test_refused_start_leaves_no_run(filled, tmp_path, authface_here):
    pipeline = tiny_sdxl(0)
    with torch.no_grad():
        pipeline.vae.encoder.conv_in.weight.fill_(float("nan"))
    pipeline.save_pretrained(tmp_path / "broken")
    run = tmp_path / "runs" / "run"
    command = ["train-prior", "--preset", "tiny", "-w", filled, "--output", run]
    completed = authface_here(*command, "--base", tmp_path / "broken")
    assert completed.returncode == 2
    assert "VAE returns NaN" in completed.stderr
    assert not run.parent.exists()


@pytest.mark.slow
def test_resumed_run_finds_its_base(filled, tmp_path, authface_here):
    base = tmp_path / "base"
    tiny_sdxl(3).save_pretrained(base)
    command = ["train-prior", "--preset", "tiny", "-w", filled, "--output", tmp_path / "run"]
    command += ["--set", "audit=false", "--set", "draw.every=0"]
    completed = authface_here(*command, "--base", base, "--steps", 1)
    assert completed.returncode == 0, completed.stderr
    completed = authface_here(*command, "--steps", 2, "--resume")
    assert completed.returncode == 0, completed.stderr

    moved = base.rename(tmp_path / "moved")
    completed = authface_here(*command, "--steps", 3, "--resume")
    assert completed.returncode == 2
    assert f"{base}" in completed.stderr
    completed = authface_here(*command, "--steps", 3, "--resume", "--base", moved)
    assert completed.returncode == 0, completed.stderr
