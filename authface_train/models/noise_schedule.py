"""Checks the noise schedule of a base: noise prediction, 1,000 timesteps, no zero terminal SNR."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers import DDPMScheduler

from manifests.support.errors import UserError
from manifests.support.text import excerpt

NUM_TIMESTEPS = 1000
MIN_ALPHA = 1e-6
"""Smallest accepted product of alphas. SDXL ends at 0.0047; zero terminal SNR is 0, or 6e-8 in
schedulers that avoid the division by zero."""
ADVICE = "Use another --base"


def check_scheduler_class(base: str, scheduler_class: type[Any]) -> None:
    """Refuse schedulers of other noise schedules, such as EDM and flow matching.

    Args:
        base: The base, for the message.
        scheduler_class: Class of its scheduler.

    Raises:
        UserError: If the class has no betas.
    """
    if "beta_schedule" not in inspect.signature(scheduler_class.__init__).parameters:
        raise UserError(
            f"{base} has the noise schedule of {scheduler_class.__name__}; only those of DDPM are "
            f"supported. {ADVICE}"
        )


def check_noise_schedule(base: str, config: dict[str, Any]) -> None:
    """Check that a base can be trained to predict noise with its schedule.

    With zero terminal SNR the last timestep has no signal: its estimate of the clean latent and its
    min-SNR weight are divisions by zero.

    Args:
        base: The base, for messages.
        config: Configuration of its scheduler.

    Raises:
        UserError: If the base cannot be trained.
    """
    check_prediction_type(base, str(config.get("prediction_type", "epsilon")))
    if config.get("rescale_betas_zero_snr"):
        raise zero_snr_error(base)
    schedule = DDPMScheduler.from_config(config)
    if schedule.config.num_train_timesteps != NUM_TIMESTEPS:
        raise UserError(
            f"{base} has {schedule.config.num_train_timesteps} timesteps; only {NUM_TIMESTEPS} are "
            f"supported. {ADVICE}"
        )
    products = schedule.alphas_cumprod
    if not torch.isfinite(products).all() or ((schedule.betas < 0) | (schedule.betas > 1)).any():
        raise UserError(f"{base} has a noise schedule with impossible betas. {ADVICE}")
    if float(products.min()) < MIN_ALPHA:
        raise zero_snr_error(base)


def check_prediction_type(base: str, prediction_type: str) -> None:
    """Refuse other predictions than that of the noise.

    Args:
        base: The base, for the message.
        prediction_type: "epsilon", "v_prediction" and others of diffusers, or "v" of modelspec.

    Raises:
        UserError: If the base does not predict the noise.
    """
    if prediction_type != "epsilon":
        raise UserError(
            f"{base} predicts {excerpt(prediction_type, 40)}; only epsilon prediction is "
            f"supported. {ADVICE}"
        )


def zero_snr_error(base: str) -> UserError:
    """Create the error for a base with zero terminal SNR."""
    return UserError(
        f"{base} has zero terminal SNR (rescale_betas_zero_snr), which cannot be trained with "
        f"epsilon prediction. {ADVICE}"
    )
