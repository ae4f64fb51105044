"""What both stages draw for a sample, from counters: flip, posterior sample, noise and timestep; and the losses by timestep."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from diffusers import DDPMScheduler

from authface_train.data.latents import sample_latent
from authface_train.data.sample_keys import SampleKey, torch_generator
from authface_train.models.sdxl import DiffusionCore
from authface_train.settings import TrainSettings
from authface_train.training.loop import TIMESTEP_BINS, Sample
from manifests.support.errors import UserError


class NoiseSampler:
    """latents: (2 flips, mean and std, channels, h, w) of each row. Raises UserError for another prediction type."""

    def __init__(
        self,
        settings: TrainSettings,
        view: pd.DataFrame,
        latents: Sequence[torch.Tensor],
        core: DiffusionCore,
    ):
        self.settings, self.latents = settings, latents
        self.face_ids = view["face_id"].tolist()
        self.scaling_factor = core.scaling_factor
        self.scheduler = DDPMScheduler.from_config(core.scheduler.config)
        if self.scheduler.config.prediction_type != "epsilon":
            raise UserError(
                f"the base predicts {self.scheduler.config.prediction_type}, and the loss is of the noise: name another --base"
            )

    def draw(self, draw: SampleKey) -> tuple[Sample, bool]:
        """latent and noise (channels, h, w), t_step (); and whether the picture is mirrored."""
        generator = torch_generator(
            self.settings.seed, draw.epoch, self.face_ids[draw.index], "noise"
        )
        flip = bool(torch.rand((), generator=generator) < 0.5)
        latent = sample_latent(self.latents[draw.index], flip, generator, self.scaling_factor)
        noise = torch.randn(latent.shape, generator=generator)
        t_step = torch.randint(self.scheduler.config.num_train_timesteps, (), generator=generator)
        return {"latent": latent, "noise": noise, "t_step": t_step}, flip


def min_snr_weight(scheduler: DDPMScheduler, t_step: torch.Tensor, gamma: float) -> torch.Tensor:
    """(b,) min(SNR, gamma) / SNR, by which Hang et al. 2023 weight the loss of a noise prediction; 1 where gamma is 0."""
    if not gamma:
        return torch.ones_like(t_step, dtype=torch.float32)
    alpha_bar = scheduler.alphas_cumprod.to(t_step.device)[t_step]
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / snr


def accumulate_by_timestep(bands: torch.Tensor, losses: torch.Tensor, t_step: torch.Tensor) -> None:
    """Add a micro-batch's losses, (b,), to the sums and counts (2, BANDS) of their bands of timesteps."""
    place = t_step * TIMESTEP_BINS // 1000
    bands[0].index_add_(0, place, losses.detach())
    bands[1].index_add_(0, place, torch.ones_like(losses))
