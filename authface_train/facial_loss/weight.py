"""Weight of the facial loss at each timestep (AuthFace, Eq. 3)."""

from __future__ import annotations

import math

import torch

from authface_train.settings import WeightKind


def time_aware_weight(t: torch.Tensor, m: float, s: float) -> torch.Tensor:
    """The logit-normal density of Eq. 3.

    w(t) = 1 / (s sqrt(2 pi)) * 1 / (t (1 - t)) * exp(-(logit(t) - m)^2 / (2 s^2)), with
    logit(t) = log(t / (1 - t)). The paper prints log(1 / (t (1 - t))), which is not the logit.

    Args:
        t: Times in (0, 1), any shape.
        m: Location: logit of the median.
        s: Scale, in logits.

    Returns:
        The weights, float64, in the shape of `t`.
    """
    t = t.double()
    logit = torch.log(t / (1 - t))
    return torch.exp(-((logit - m) ** 2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi) * t * (1 - t))


def weight_table(
    kind: WeightKind, m: float, s: float, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """The weight at every timestep, with t = (timestep + 0.5) / num_timesteps.

    Args:
        kind: "time-aware" is Eq. 3, "constant" is 1, "off" is 0. "constant-matched" is the constant
            with the same total pull as Eq. 3, where the pull of a timestep is the weight times
            |d z0 / d eps| = sqrt((1 - alphas_cumprod) / alphas_cumprod).
        m: Location of Eq. 3.
        s: Scale of Eq. 3.
        alphas_cumprod: (num_timesteps,) of the noise schedule.

    Returns:
        (num_timesteps,) float32.
    """
    num_timesteps = len(alphas_cumprod)
    if kind == "off":
        return torch.zeros(num_timesteps)
    if kind == "constant":
        return torch.ones(num_timesteps)

    t = (torch.arange(num_timesteps, dtype=torch.float64) + 0.5) / num_timesteps
    density = time_aware_weight(t, m, s)
    if kind == "time-aware":
        return density.float()

    abar = alphas_cumprod.double().cpu()
    pull = torch.sqrt((1 - abar) / abar)
    return torch.full((num_timesteps,), float((density * pull).sum() / pull.sum()))
