"""The noise schedule of a base, and the noise prediction loss of both stages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from authface_train.data.samples import Sample
from authface_train.models.sdxl import DiffusionCore
from authface_train.training.loop import NUM_TRAIN_TIMESTEPS, TIMESTEP_BINS


def training_scheduler(core: DiffusionCore) -> DDPMScheduler:
    """The noise schedule of a base, as a DDPM scheduler.

    Args:
        core: The base, which predicts noise; see `check_base`.
    """
    return DDPMScheduler.from_config(core.scheduler.config)


def noise_prediction_losses(
    prediction: torch.Tensor,
    batch: Sample,
    scheduler: DDPMScheduler,
    min_snr_gamma: float = 0.0,
) -> torch.Tensor:
    """Mean squared error of the noise prediction of each sample, in fp32.

    Args:
        prediction: (batch, channels, height, width), any float dtype.
        batch: `noise` of the same shape and `timesteps`, (batch,) int64.
        scheduler: The noise schedule, for the weighting.
        min_snr_gamma: Gamma of min-SNR weighting, see `min_snr_weights`; 0 disables it.

    Returns:
        (batch,) float32.
    """
    squared = F.mse_loss(prediction.float(), batch["noise"].float(), reduction="none")
    losses = squared.mean((1, 2, 3))
    return losses * min_snr_weights(scheduler, batch["timesteps"], min_snr_gamma)


def min_snr_weights(
    scheduler: DDPMScheduler, timesteps: torch.Tensor, gamma: float
) -> torch.Tensor:
    """Loss weights min(SNR, gamma) / SNR.

    Source: Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", for
    noise prediction.

    Args:
        scheduler: Its `alphas_cumprod` give the SNR of a timestep.
        timesteps: (batch,) int64.
        gamma: Gamma of the weighting; 0 weights all timesteps by 1.

    Returns:
        (batch,) float32.
    """
    if not gamma:
        return torch.ones_like(timesteps, dtype=torch.float32)
    snr = compute_snr(scheduler, timesteps)
    return snr.clamp(max=gamma) / snr


def accumulate_by_timestep(
    totals: torch.Tensor, losses: torch.Tensor, timesteps: torch.Tensor
) -> None:
    """Add per-sample losses to running totals per timestep bin, in place.

    Args:
        totals: (2, TIMESTEP_BINS) float32; row 0 sums the losses, row 1 counts the samples.
        losses: (batch,) float32.
        timesteps: (batch,) int64 in [0, NUM_TRAIN_TIMESTEPS).
    """
    bins = timesteps * TIMESTEP_BINS // NUM_TRAIN_TIMESTEPS
    totals[0].index_add_(0, bins, losses.detach())
    totals[1].index_add_(0, bins, torch.ones_like(losses))
