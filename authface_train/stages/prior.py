"""Stage I, the face prior: SDXL's U-Net is fine-tuned on captioned faces with the noise loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from accelerate import Accelerator

from authface_train.data.prompts import Embedding, time_ids
from authface_train.data.sample_keys import SampleKey
from authface_train.data.samples import NoiseSampler, PriorDataset, Sample
from authface_train.models.sdxl import DiffusionCore
from authface_train.settings import PriorSettings
from authface_train.training.compilation import compile_blocks
from authface_train.training.loop import TIMESTEP_BINS, StepLosses
from authface_train.training.noise import (
    accumulate_by_timestep,
    noise_prediction_losses,
    training_scheduler,
)
from authface_train.training.trainable_model import TrainableModel, prepare_for_training

if TYPE_CHECKING:
    from diffusers import DDPMScheduler, UNet2DConditionModel

ATTENTION_LAYERS = ["to_k", "to_q", "to_v", "to_out.0"]
"""Layers of the U-Net that LoRA adapts."""


def make_trainable(unet: UNet2DConditionModel, settings: PriorSettings) -> UNet2DConditionModel:
    """Prepare a U-Net for training, in place.

    All weights are trained; with `lora_rank`, LoRA layers in the attention are trained instead.

    Args:
        unet: The base's U-Net.
        settings: `lora_rank`, `gradient_checkpointing`, `compile` and `seed` are used.

    Returns:
        The same U-Net.
    """
    unet.train().requires_grad_(True)
    if settings.lora_rank:
        from peft import LoraConfig

        # New layers have the dtype of the U-Net, which may be half precision.
        torch.nn.Module.to(unet, torch.float32)
        unet.requires_grad_(False)
        config = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_rank,
            init_lora_weights="gaussian",
            target_modules=ATTENTION_LAYERS,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            unet.add_adapter(config)
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if settings.compile:
        compile_blocks(unet)
    return unet


def prior_losses(
    unet: torch.nn.Module,
    batch: Sample,
    micro_conditioning: torch.Tensor,
    scheduler: DDPMScheduler,
    min_snr_gamma: float = 0.0,
) -> torch.Tensor:
    """Noise prediction losses of a batch of captioned latents.

    The U-Net computes in the dtype of its weights, or in that of autocast.

    Args:
        unet: The U-Net.
        batch: `latent` and `noise`, (batch, channels, height, width); `timesteps`, (batch,);
            `embeds`, (batch, 77, width); `pooled`, (batch, width).
        micro_conditioning: (6,) SDXL's time ids, on the device of the batch: original size, crop
            offset, target size in px.
        scheduler: The noise schedule.
        min_snr_gamma: Gamma of min-SNR weighting; 0 disables it.

    Returns:
        (batch,) float32.
    """
    noisy = scheduler.add_noise(batch["latent"], batch["noise"], batch["timesteps"])
    conditions = {
        "text_embeds": batch["pooled"],
        "time_ids": micro_conditioning.expand(len(noisy), -1),
    }
    dtype = next(unet.parameters()).dtype
    prediction = unet(
        noisy.to(dtype),
        batch["timesteps"],
        batch["embeds"].to(dtype),
        added_cond_kwargs=conditions,
    ).sample
    return noise_prediction_losses(prediction, batch, scheduler, min_snr_gamma)


class PriorTrainer:
    """Trains the U-Net on cached latents and prompt embeddings.

    Args:
        settings: The run's settings.
        core: The base without VAE and text encoders, whose results are cached.
        view: The training faces, one row each.
        latents: For each face the VAE's posterior, see `NoiseSampler`.
        prompts: `settings.orders` embeddings per face, face by face, one per order of its tags.
        null_prompt: Embedding of the empty prompt, which replaces dropped captions.
        accelerator: Knows the device and the processes.

    Attributes:
        models: The trained models by name, here `unet`.
        dataset: The training samples.
        num_faces: Number of training faces.
        scheduler: The noise schedule.
    """

    def __init__(
        self,
        *,
        settings: PriorSettings,
        core: DiffusionCore,
        view: pd.DataFrame,
        latents: Sequence[torch.Tensor],
        prompts: Sequence[Embedding],
        null_prompt: Embedding,
        accelerator: Accelerator,
    ) -> None:
        self.settings = settings
        self.accelerator = accelerator
        self.scheduler = training_scheduler(core)
        self.noise_sampler = NoiseSampler(settings.seed, view, latents, core)
        self.dataset = PriorDataset(settings, self.noise_sampler, prompts, null_prompt)
        self.num_faces = len(view)
        self.time_ids = torch.tensor(time_ids(settings.resolution_px), device=accelerator.device)
        unet = make_trainable(core.unet, settings)
        self.models: dict[str, TrainableModel] = {
            "unet": prepare_for_training(unet, settings, accelerator)
        }

    def step(self, step: int, keys: list[SampleKey], micro_batches: Iterator[Sample]) -> StepLosses:
        """Train on one global batch."""
        model = self.models["unet"]
        device = self.accelerator.device
        share = self.settings.batch // self.accelerator.num_processes
        total = torch.zeros((), device=device)
        by_timestep = torch.zeros(2, TIMESTEP_BINS, device=device)
        num_seen = 0
        for batch in micro_batches:
            num_seen += len(batch["latent"])
            is_last = num_seen == share
            with (
                model.micro_batch(self.accelerator, is_last=is_last),
                self.accelerator.autocast(),
            ):
                losses = prior_losses(
                    model.module,
                    batch,
                    self.time_ids,
                    self.scheduler,
                    self.settings.min_snr_gamma,
                )
                loss = losses.sum() / share
                self.accelerator.backward(loss)
            total += loss.detach()
            accumulate_by_timestep(by_timestep, losses, batch["timesteps"])

        means = {"loss": total}
        norm = model.update(self.accelerator, self.settings)
        if norm is not None:
            means["gradient_norm"] = norm
        return StepLosses(means, by_timestep)
