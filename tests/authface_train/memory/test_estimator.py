"""The dry run's memory figure against what training takes; the micro-batch that follows from a card; presets' arithmetic."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from authface_train import presets as preset
from authface_train.facial_loss.discriminator import PatchDiscriminator
from authface_train.memory import dry_run
from authface_train.memory.estimator import MemoryEstimator, disk_bytes
from authface_train.memory.fake_tensor_pass import PriorPass, RestorerPass
from authface_train.models.sdxl import tiny_sdxl
from authface_train.presets import load_preset
from authface_train.training import setup as start
from authface_train.training.loop import accumulation_steps
from manifests.support.errors import UserError

pytestmark = pytest.mark.slow  # rehearsals take seconds each
CPU = torch.device("cpu")
GROWTH = Path(__file__).parents[2] / "support" / "growth.py"


def test_memory_is_within_a_quarter_of_what_a_growing_process_takes():
    done = subprocess.run(
        [sys.executable, GROWTH, "batch=2", "micro_batch=1", "ema_decay=0.9"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["grew"] > 1e9
    assert abs(found["said"] / found["grew"] - 1) < 0.25, found


@pytest.fixture(scope="module")
def unet():
    return tiny_sdxl(0).unet


def memory(unet, *changes, micro=2, world=1):
    settings = load_preset("prior", "tiny", list(changes))
    return MemoryEstimator(PriorPass(unet, settings, 8), CPU).memory(settings, micro, world)


def test_weights_gradients_and_moments_are_what_the_optimiser_keeps(unet):
    n = sum(parameter.numel() for parameter in unet.parameters())
    plain = memory(unet)
    assert (plain.parameters, plain.gradients, plain.optimiser, plain.average) == (
        4 * n,
        4 * n,
        8 * n,
        0,
    )
    eight = memory(unet, "optimiser=adamw-8bit")
    assert (eight.parameters, eight.gradients) == (4 * n, 4 * n)
    assert 2 * n < eight.optimiser < 2.1 * n
    low = memory(unet, "optimiser=adamw-8bit-bf16", "mixed_precision=bf16")
    assert (low.parameters, low.gradients) == (2 * n, 2 * n)
    inside = memory(unet, "step_in_backward=true", "clip_norm=0")
    assert inside.gradients == 0
    assert inside.total < plain.total
    assert memory(unet, "ema_decay=0.9").average == 4 * n
    lora = memory(unet, "lora_rank=2")
    assert lora.optimiser < 0.1 * plain.optimiser
    assert lora.parameters > plain.parameters


def test_shards_divide_it(unet):
    one, four = memory(unet), memory(unet, "sharding=full", world=4)
    for part in ("parameters", "gradients", "optimiser"):
        assert getattr(four, part) == getattr(one, part) / 4
    assert four.total < memory(unet, "sharding=gradients", world=4).total < one.total


def test_activations_grow_with_the_micro_batch_and_shrink_with_checkpointing(unet):
    small, large = memory(unet, micro=4), memory(unet, micro=16)
    assert large.activations > 3 * small.activations
    assert (
        memory(unet, "gradient_checkpointing=true", micro=16).activations < 0.7 * large.activations
    )


def test_the_micro_batch_follows_from_the_card_and_the_batch_stays(unet):
    settings = load_preset("prior", "tiny", [])
    budget = MemoryEstimator(PriorPass(unet, settings, 8), CPU)
    for micro in (1, 2, 4):
        needed = budget.memory(settings, micro, 1).total
        assert budget.derive_micro_batch(settings, 1, needed) == micro
        assert (
            micro * accumulation_steps(settings.model_copy(update={"micro_batch": micro}), 1)
            == settings.batch
        )
    with pytest.raises(UserError, match="one sample at a time takes"):
        budget.derive_micro_batch(settings, 1, 1e6)


def judges(channels, width) -> float:
    """Bytes of two discriminators with their gradients and moments."""
    weights = sum(
        parameter.numel() for parameter in PatchDiscriminator(channels, width).parameters()
    )
    return 2 * 16.0 * weights


def test_stage_two_counts_the_frozen_unet(unet):
    settings = load_preset("restorer", "tiny", [])
    found = MemoryEstimator(RestorerPass(unet, settings, 8), CPU).memory(settings, 2, 1)
    n = sum(parameter.numel() for parameter in unet.parameters())
    trained = found.gradients / 4
    assert found.parameters == pytest.approx(4 * (n + trained) + judges(4, 8))
    assert trained < n


@pytest.fixture(scope="module")
def sdxl():
    """SDXL's own U-Net by its published configuration, with shapes alone: 2.567 B parameters."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
            cross_attention_dim=2048,
        )  # fmt: skip


def test_the_papers_run_needs_what_the_recipe_says(sdxl):
    settings = load_preset("prior", "paper", [])
    rehearsal = PriorPass(sdxl, settings, 8)
    assert rehearsal.trained == 2_567_463_684
    model_gb = rehearsal.trained * 4 / 1e9
    assert disk_bytes(rehearsal, settings, 0) / 1e9 == pytest.approx(
        3 * 3 * model_gb, rel=0.01
    )  # with both moments
    restorer = RestorerPass(sdxl, load_preset("restorer", "paper", []), 8)
    assert restorer.trained == pytest.approx(1.251e9, rel=0.001)
    assert restorer.frozen_bytes == 2 * rehearsal.trained + judges(4, 64)


@pytest.mark.parametrize("stage", ["prior", "restorer"])
def test_every_card_preset_changes_the_card_and_not_the_training(stage):
    paper = load_preset(stage, "paper", [])
    cards = {name: card for name in preset.names() if (card := preset.card_of(name))}
    assert {name: (card.count, card.memory_gb) for name, card in cards.items()} == {
        "1x24gb": (1, 24), "1x80gb": (1, 80), "4x48gb": (4, 48), "8x80gb": (8, 80),
    }  # fmt: skip
    for name, card in cards.items():
        own = load_preset(stage, name, [])
        kept = own.model_dump(
            exclude={"optimiser", "sharding", "gradient_checkpointing", "micro_batch"}
        )
        assert kept == paper.model_dump(
            exclude={"optimiser", "sharding", "gradient_checkpointing", "micro_batch"}
        )
        assert own.batch % card.count == 0
        assert own.micro_batch is None


@pytest.mark.parametrize("stage", ["prior", "restorer"])
def test_a_dry_run_takes_no_step_and_leaves_nothing(filled, tmp_path, authface_here, stage):
    words = ["train-prior"] if stage == "prior" else ["train-restore", "--base", "tiny"]
    done = authface_here(
        *words,
        "--preset",
        "tiny",
        "-w",
        filled,
        "--output",
        tmp_path / "run",
        "--dry-run",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["memory_gb"]) == {
        "parameters",
        "gradients",
        "optimiser",
        "average",
        "activations",
    }
    assert found["memory_total_gb"] == pytest.approx(sum(found["memory_gb"].values()))
    assert found["fits"] is True
    assert (found["steps"], found["batch"], found["micro_batch"], found["accumulation"]) == (
        20,
        4,
        4,
        1,
    )
    assert found["hours"] == pytest.approx(found["seconds_per_step"] * 20 / 3600)
    assert found["images_per_second"] == pytest.approx(4 / found["seconds_per_step"])
    assert found["cache_gb"] > 0
    assert found["disk_gb"] > found["cache_missing_gb"]
    assert not (tmp_path / "run").exists()
    shown = authface_here(
        *words, "--preset", "tiny", "-w", filled, "--output", tmp_path / "run", "--dry-run"
    )
    assert "It fits." in shown.stdout
    assert "batch 4 = 4 x 1 accumulated x 1 processes" in shown.stdout


def test_what_does_not_fit_names_the_preset_that_does(
    filled, tmp_path, authface_here, monkeypatch, capsys
):
    for module in (start, dry_run):
        monkeypatch.setattr(module, "capacity", lambda device, world: 14e6)
    words = [
        "train-prior",
        "--preset",
        "tiny",
        "-w",
        filled,
        "--output",
        tmp_path / "run",
        "--dry-run",
    ]
    done = authface_here(*words, "--json")
    assert done.returncode == 4
    assert "does not fit here" in done.stderr
    found = dry_run.Plan(**json.loads(done.stdout))
    assert (found.fits, found.preset_that_fits) == (False, "1x24gb")
    dry_run.show(found, as_json=False)
    assert "--preset 1x24gb does" in capsys.readouterr().out
    dry_run.show(replace(found, preset_that_fits=None), as_json=False)
    assert "no preset does" in capsys.readouterr().out
