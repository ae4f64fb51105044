"""Stage I on a CUDA card: precisions, optimisers, and the memory that the dry run says."""

import gc

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import UNet2DConditionModel

from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import step_keys
from authface_train.memory.dry_run import DummyCache
from authface_train.memory.estimator import MemoryEstimator
from authface_train.memory.fake_tensor_pass import PriorPass
from authface_train.models.sdxl import DiffusionCore, tiny_sdxl
from authface_train.presets import load_preset
from authface_train.stages.prior import PriorTrainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card"),
]
WIDER = {"block_out_channels": (160, 480), "attention_head_dim": (4, 8), "layers_per_block": 2}


@pytest.fixture(autouse=True)
def fresh():
    AcceleratorState._reset_state(reset_partial_state=True)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def make_trainer(*changes):
    settings = load_preset("prior", "tiny", ["resolution_px=256", "audit=false", *changes])
    tiny = tiny_sdxl(0)
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**tiny.unet.config, **WIDER})
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    said = (
        MemoryEstimator(PriorPass(unet, settings, 8), accelerator.device)
        .memory(settings, settings.micro_batch, 1)
        .total
    )
    prompt = Embedding(torch.randn(77, 64), torch.randn(32))
    latents = DummyCache(torch.randn(2, 2, 4, 32, 32), settings.batch)
    view = pd.DataFrame({"face_id": [str(number) for number in range(settings.batch)]})
    core = DiffusionCore(unet, tiny.scheduler, 0.13, 8)
    return PriorTrainer(
        settings, core, view, latents, DummyCache(prompt, settings.batch), prompt, accelerator
    ), said


def take_steps(trainer, count):
    losses = []
    for step in range(count):
        draws = step_keys(0, step, trainer.settings.batch, trainer.faces)
        micros = []
        for at in range(0, len(draws), trainer.settings.micro_batch):
            samples = [
                trainer.sample(draw) for draw in draws[at : at + trainer.settings.micro_batch]
            ]
            micros.append(
                {
                    name: torch.stack([sample[name] for sample in samples]).cuda()
                    for name in samples[0]
                }
            )
        losses.append(float(trainer.step(step, draws, iter(micros)).means["loss"]))
    return losses


@pytest.mark.parametrize(
    "changes",
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
def test_it_learns_by_heart_what_it_always_sees(changes):
    trainer, _ = make_trainer("learning_rate=1e-3", *changes)
    losses = take_steps(trainer, 30)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize(
    "changes",
    [["mixed_precision=bf16"], ["mixed_precision=bf16", "gradient_checkpointing=true", "batch=8", "micro_batch=4"],
     ["mixed_precision=no", "ema_decay=0.9", "ema_device=gpu"]],
    ids=" ".join,
)  # fmt: skip
def test_memory_is_within_a_tenth_of_what_the_card_gives(changes):
    trainer, said = make_trainer(*changes)
    take_steps(trainer, 3)
    assert abs(said / torch.cuda.max_memory_allocated() - 1) < 0.1
