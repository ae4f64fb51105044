"""How much the facial loss counts at a timestep (paper Eq. 3)."""

from __future__ import annotations

import math

import torch

from authface_train.settings import WeightKind


def time_aware_weight(t: torch.Tensor, m: float, s: float) -> torch.Tensor:
    """The logit-normal density at t in (0, 1): 1/(s sqrt(2 pi)) * 1/(t (1 - t)) * exp(-(logit t - m)^2 / (2 s^2)), float64.

    logit t = log(t / (1 - t)); the paper's text prints log(1 / (t (1 - t))), which is no logit.
    """
    t = t.double()
    logit = torch.log(t / (1 - t))
    return torch.exp(-((logit - m) ** 2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi) * t * (1 - t))


def weight_table(
    kind: WeightKind, m: float, s: float, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """The weight at every timestep, (steps,) float32. t = (step + 0.5) / steps.

    time-aware: the density. constant: 1. constant-matched: one value that pulls as much in total as time-aware does, a step
    pulling in proportion to |d z0 / d eps| = sqrt((1 - abar) / abar). off: 0.
    """
    steps = len(alphas_cumprod)
    t = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    if kind == "off":
        return torch.zeros(steps)
    if kind == "constant":
        return torch.ones(steps)
    density = time_aware_weight(t, m, s)
    if kind == "time-aware":
        return density.float()
    abar = alphas_cumprod.double().cpu()
    pull = torch.sqrt((1 - abar) / abar)
    return torch.full((steps,), float((density * pull).sum() / pull.sum()))
