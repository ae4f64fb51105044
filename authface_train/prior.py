"""Stage I: the face prior. SDXL's whole U-Net learns captioned faces by its usual noise loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler

from authface_train.checkpoint import Part
from authface_train.data.counters import Draw, torch_generator
from authface_train.data.latents import sample_latent
from authface_train.data.prompts import Prompts, time_ids
from authface_train.loop import Sample
from authface_train.settings import PriorSettings, TrainSettings


class NoiseDraws:
    """What both stages draw for a sample: flip, posterior sample, noise and timestep."""

    def __init__(self, settings: TrainSettings, view: pd.DataFrame, latents: torch.Tensor, pipeline: Any):
        self.settings, self.latents = settings, latents
        self.face_ids = view["face_id"].tolist()
        self.scaling_factor = float(pipeline.vae.config.scaling_factor)
        self.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)

    def draw(self, draw: Draw) -> tuple[Sample, bool]:
        """latent and noise (channels, h, w), t_step (); and whether the picture is mirrored."""
        generator = torch_generator(self.settings.seed, draw.epoch, self.face_ids[draw.index], "noise")
        flip = bool(torch.rand((), generator=generator) < 0.5)
        latent = sample_latent(self.latents[draw.index], flip, generator, self.scaling_factor)
        noise = torch.randn(latent.shape, generator=generator)
        t_step = torch.randint(self.scheduler.config.num_train_timesteps, (), generator=generator)
        return {"latent": latent, "noise": noise, "t_step": t_step}, flip


def adamw(module: torch.nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over a module's parameters."""
    return torch.optim.AdamW(
        module.parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        eps=settings.epsilon,
    )


def without_sync(accelerator: Accelerator, module: torch.nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """Gradients travel between processes with the last micro-batch only."""
    return contextlib.nullcontext() if last else accelerator.no_sync(module)


class PriorTrainer:
    """parts: the U-Net. Text encoders and VAE are not needed: their work is in the caches."""

    def __init__(
        self,
        settings: PriorSettings,
        pipeline: Any,
        view: pd.DataFrame,
        latents: torch.Tensor,
        prompts: Prompts,
        accelerator: Accelerator,
    ):
        self.settings, self.accelerator, self.prompts = settings, accelerator, prompts
        self.draws = NoiseDraws(settings, view, latents, pipeline)
        self.faces = len(view)
        self.time_ids = torch.tensor(time_ids(settings.resolution_px))
        unet = pipeline.unet.train().requires_grad_(True)
        if settings.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        unet, optimiser = accelerator.prepare(unet, adamw(unet, settings))
        self.parts = {"unet": Part(unet, optimiser)}

    def sample(self, draw: Draw) -> Sample:
        sample, _ = self.draws.draw(draw)
        orders = self.settings.orders
        row = self.prompts.of_row[draw.index * orders + draw.epoch % orders]
        return {**sample, "embeds": self.prompts.embeds[row], "pooled": self.prompts.pooled[row]}

    def step(self, step: int, draws: list[Draw], micros: Iterator[Sample]) -> dict[str, torch.Tensor]:
        unet, optimiser = self.parts["unet"].module, self.parts["unet"].optimiser
        share = self.settings.batch // self.accelerator.num_processes
        total = torch.zeros((), device=self.accelerator.device)
        seen = 0
        for batch in micros:
            seen += len(batch["latent"])
            with without_sync(self.accelerator, unet, seen == share), self.accelerator.autocast():
                loss = self._noise_loss(unet, batch).sum() / share
                self.accelerator.backward(loss)
            total += loss.detach()
        norm = self.accelerator.clip_grad_norm_(unet.parameters(), self.settings.clip_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return {"loss": total, "gradient_norm": torch.as_tensor(norm)}

    def _noise_loss(self, unet: torch.nn.Module, batch: Sample) -> torch.Tensor:
        """(b,) mean squared error of the noise prediction, fp32."""
        noisy = self.draws.scheduler.add_noise(batch["latent"], batch["noise"], batch["t_step"])
        added = {"text_embeds": batch["pooled"], "time_ids": self.time_ids.to(noisy.device).expand(len(noisy), -1)}
        prediction = unet(noisy, batch["t_step"], batch["embeds"], added_cond_kwargs=added).sample
        return F.mse_loss(prediction.float(), batch["noise"].float(), reduction="none").mean((1, 2, 3))
