"""Stage I on a CUDA GPU: precisions, optimizers, and measured against estimated memory."""

import gc

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import UNet2DConditionModel
from training_steps import micro_batches

from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import step_keys
from authface_train.facial_loss.regions import cut_patches
from authface_train.memory.dry_run import DummyCache
from authface_train.memory.estimator import MemoryEstimator
from authface_train.memory.fake_tensor_pass import PriorPass
from authface_train.models.sdxl import DiffusionCore, tiny_sdxl
from authface_train.presets import load_preset, parse_set_option
from authface_train.settings import PriorSettings
from authface_train.stages.prior import PriorTrainer
from authface_train.training.processes import make_accelerator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]
WIDER_UNET = {
    "block_out_channels": (160, 480),
    "attention_head_dim": (4, 8),
    "layers_per_block": 2,
}


@pytest.fixture(autouse=True)
def fresh_gpu():
    AcceleratorState._reset_state(reset_partial_state=True)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def make_settings(*set_options: str) -> PriorSettings:
    overrides = {"resolution_px": 256, "audit": False, **dict(map(parse_set_option, set_options))}
    return load_preset("prior", "tiny", overrides)


def make_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel.from_config({**tiny_sdxl(0).unet.config, **WIDER_UNET})


def make_trainer(settings: PriorSettings, unet: UNet2DConditionModel) -> PriorTrainer:
    """A trainer whose samples all have the same random latents and prompt."""
    prompt = Embedding(torch.randn(77, 64), torch.randn(32))
    latents = DummyCache(torch.randn(2, 2, 4, 32, 32), settings.batch)
    return PriorTrainer(
        settings=settings,
        core=DiffusionCore(unet, tiny_sdxl(0).scheduler, 0.13, 8),
        view=pd.DataFrame({"face_id": [str(number) for number in range(settings.batch)]}),
        latents=latents,
        prompts=DummyCache(prompt, settings.batch),
        null_prompt=prompt,
        accelerator=make_accelerator(settings),
    )


def take_steps(trainer: PriorTrainer, count: int) -> list[float]:
    losses = []
    device = trainer.accelerator.device
    for step in range(count):
        keys = step_keys(0, step, trainer.settings.batch, trainer.num_faces)
        batches = (
            {name: value.to(device) for name, value in batch.items()}
            for batch in micro_batches(trainer, keys, trainer.settings.micro_batch)
        )
        losses.append(float(trainer.step(step, keys, batches).means["loss"]))
    return losses


@pytest.mark.parametrize(
    "options",
    [
        ["mixed_precision=bf16"],
        ["mixed_precision=fp16"],
        ["mixed_precision=bf16", "optimiser=adamw-8bit"],
        ["mixed_precision=bf16", "optimiser=adamw-8bit-bf16"],
        ["mixed_precision=bf16", "compile=true"],
        ["mixed_precision=bf16", "step_in_backward=true", "clip_norm=0"],
    ],
    ids=" ".join,
)
def test_model_overfits_a_repeated_sample(options):
    settings = make_settings("learning_rate=1e-4", *options)
    losses = take_steps(make_trainer(settings, make_unet()), 30)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_cutting_regions_does_not_wait_for_the_gpu():
    latents = torch.randn(2, 4, 16, 16, device="cuda", requires_grad=True)
    boxes_px = torch.tensor([[[20.0, 20, 60, 60]] * 3] * 2)
    visible = torch.tensor([[True, True, False], [True, False, True]])
    torch.cuda.set_sync_debug_mode("error")
    try:
        cut_patches(latents, boxes_px, visible, eye_cells=4, mouth_cells=6, vae_scale_factor=8)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "options",
    [
        ["mixed_precision=bf16"],
        ["mixed_precision=bf16", "gradient_checkpointing=true", "batch=8", "micro_batch=4"],
        ["mixed_precision=no", "ema_decay=0.9", "ema_device=gpu"],
    ],
    ids=" ".join,
)
def test_estimated_memory_is_within_a_tenth_of_measured_memory(options):
    settings = make_settings(*options)
    unet = make_unet()
    estimator = MemoryEstimator(PriorPass(unet, settings, 8), torch.device("cuda"))
    estimated = estimator.estimate(settings, settings.micro_batch, 1).total
    take_steps(make_trainer(settings, unet), 3)
    assert abs(estimated / torch.cuda.max_memory_allocated() - 1) < 0.1
