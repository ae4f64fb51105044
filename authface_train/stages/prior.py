"""Stage I: the face prior. SDXL's whole U-Net learns captioned faces by its usual noise loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from authface_train.data.prompts import Embedding, time_ids
from authface_train.data.sample_keys import SampleKey, torch_generator
from authface_train.models.sdxl import DiffusionCore
from authface_train.runs.checkpoint import TrainableModel
from authface_train.settings import PriorSettings, TrainSettings
from authface_train.training.ema import EMA
from authface_train.training.loop import TIMESTEP_BINS, Losses, Sample
from authface_train.training.metrics_logger import MetricsLogger
from authface_train.training.noise import NoiseSampler, accumulate_by_timestep, min_snr_weight
from authface_train.training.optimizer import make_optimizer
from authface_train.training.sharding import clip_gradients, distribute_model, no_sync

ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]


def make_trainable(unet: Any, settings: PriorSettings) -> Any:
    """The U-Net as it is trained: all of it, or LoRA layers in it; in bf16 where the optimiser rounds stochastically."""
    unet.train().requires_grad_(True)
    if settings.lora_rank:
        from peft import LoraConfig

        unet.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            rank = settings.lora_rank
            unet.add_adapter(
                LoraConfig(
                    r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ATTENTION
                )
            )
    if settings.optimiser == "adamw-8bit-bf16":
        unet.to(torch.bfloat16)
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if settings.compile:
        unet.compile()
    return unet


def trained_part(module: Any, settings: TrainSettings, accelerator: Accelerator) -> TrainableModel:
    """A model over the processes, with its optimiser and, where settings want one, its average."""
    shared, optimiser = distribute_model(
        module, lambda parameters: make_optimizer(parameters, settings), settings, accelerator
    )
    ema = None
    if settings.ema_decay:
        device = accelerator.device if settings.ema_device == "gpu" else torch.device("cpu")
        ema = EMA(accelerator.unwrap_model(shared), settings.ema_decay, device)
    return TrainableModel(shared, optimiser, ema)


def noise_losses(
    draws: NoiseSampler,
    unet: Any,
    batch: Sample,
    time_ids_: torch.Tensor,
    min_snr_gamma: float = 0.0,
) -> torch.Tensor:
    """(b,) mean squared error of the noise prediction, fp32, times min(SNR, gamma) / SNR where gamma is not 0 (Hang 2023)."""
    noisy = draws.scheduler.add_noise(batch["latent"], batch["noise"], batch["t_step"])
    added = {
        "text_embeds": batch["pooled"],
        "time_ids": time_ids_.to(noisy.device).expand(len(noisy), -1),
    }
    prediction = unet(noisy, batch["t_step"], batch["embeds"], added_cond_kwargs=added).sample
    losses = F.mse_loss(prediction.float(), batch["noise"].float(), reduction="none").mean(
        (1, 2, 3)
    )
    return losses * min_snr_weight(draws.scheduler, batch["t_step"], min_snr_gamma)


class PriorTrainer:
    """parts: the U-Net. Text encoders and VAE are not needed: their work is in the caches.

    prompts: `orders` for each row of the view, one row after the other. null_prompt: what dropped captions become.
    """

    def __init__(
        self,
        settings: PriorSettings,
        core: DiffusionCore,
        view: pd.DataFrame,
        latents: Sequence[torch.Tensor],
        prompts: Sequence[Embedding],
        null_prompt: Embedding,
        accelerator: Accelerator,
    ):
        self.settings, self.accelerator, self.prompts, self.null_prompt = (
            settings,
            accelerator,
            prompts,
            null_prompt,
        )
        self.draws = NoiseSampler(settings, view, latents, core)
        self.faces = len(view)
        self.time_ids = torch.tensor(time_ids(settings.resolution_px))
        self.parts = {
            "unet": trained_part(make_trainable(core.unet, settings), settings, accelerator)
        }
        self.onlookers: list[Any] = []

    def sample(self, draw: SampleKey) -> Sample:
        sample, _ = self.draws.draw(draw)
        generator = torch_generator(
            self.settings.seed, draw.epoch, self.draws.face_ids[draw.index], "prior"
        )
        if self.settings.offset_noise:
            noise = sample["noise"]
            sample["noise"] = noise + self.settings.offset_noise * torch.randn(
                len(noise), 1, 1, generator=generator
            )
        orders = self.settings.orders
        prompt = self.prompts[draw.index * orders + draw.epoch % orders]
        if (
            self.settings.caption_dropout
            and float(torch.rand((), generator=generator)) < self.settings.caption_dropout
        ):
            prompt = self.null_prompt
        return {**sample, "embeds": prompt.embeds, "pooled": prompt.pooled}

    def step(self, step: int, draws: list[SampleKey], micros: Iterator[Sample]) -> Losses:
        part = self.parts["unet"]
        share = self.settings.batch // self.accelerator.num_processes
        device = self.accelerator.device
        total, bands = torch.zeros((), device=device), torch.zeros(2, TIMESTEP_BINS, device=device)
        seen = 0
        for batch in micros:
            seen += len(batch["latent"])
            with no_sync(self.accelerator, part.module, seen == share), self.accelerator.autocast():
                losses = noise_losses(
                    self.draws, part.module, batch, self.time_ids, self.settings.min_snr_gamma
                )
                loss = losses.sum() / share
                self.accelerator.backward(loss)
            total += loss.detach()
            accumulate_by_timestep(bands, losses, batch["t_step"])
        means = {"loss": total}
        if not self.settings.step_in_backward:
            means["gradient_norm"] = clip_gradients(
                self.accelerator, part.module, self.settings.clip_norm
            )
        part.optimiser.step()
        part.optimiser.zero_grad(set_to_none=True)
        if part.ema is not None:
            part.ema.update()
        return Losses(means, bands)

    def look(self, step: int, watch: MetricsLogger | None) -> None:
        for onlooker in self.onlookers:
            onlooker.look(step, watch)
